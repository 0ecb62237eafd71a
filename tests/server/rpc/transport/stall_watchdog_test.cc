#include "server/rpc/transport/stall_watchdog.h"

#include <gtest/gtest.h>

#include <functional>

#include "absl/synchronization/notification.h"
#include "tests/testing/test_clock.h"
#include "tests/testing/wall_clock.h"

namespace backboned::rpc {
namespace {

constexpr absl::Duration kTimeout = absl::Milliseconds(8);

class StallWatchdogTest : public ::testing::Test {
 protected:
  // Returns once the watchdog has found that a transfer that begins now
  // stalled, and so has looked at all. Calls `halfway` before that.
  void LetItLook(const std::function<void()>& halfway = [] {}) {
    absl::Notification found;
    const StallWatchdog::Transfer stalled(watchdog_, [&] { found.Notify(); });
    clock_.Advance(kTimeout / 2);
    halfway();
    clock_.Advance(kTimeout / 2);
    found.WaitForNotification();
    EXPECT_TRUE(stalled.stalled());
  }

  TestClock clock_;
  StallWatchdog watchdog_{kTimeout, clock_};
};

TEST_F(StallWatchdogTest, CancelsWhatMovesTooLittleOnce) {
  int cancelled = 0;
  StallWatchdog::Transfer transfer(watchdog_, [&] { ++cancelled; });
  transfer.Moved(StallWatchdog::kProgressBytes - 1);
  LetItLook();
  LetItLook();
  EXPECT_TRUE(transfer.stalled());
  EXPECT_EQ(cancelled, 1);
}

TEST_F(StallWatchdogTest, CancelsWhatTakesTooLongThoughItMoves) {
  StallWatchdog::Transfer transfer(watchdog_, [] {});
  const auto moves = [&] { transfer.Moved(StallWatchdog::kProgressBytes); };
  for (int i = 1; i < StallWatchdog::kMostTimeouts; ++i) {
    LetItLook(moves);
    ASSERT_FALSE(transfer.stalled()) << i;
  }
  LetItLook(moves);
  EXPECT_TRUE(transfer.stalled());
}

TEST_F(StallWatchdogTest, LeavesWhatMovesThoughTheWallClockIsSet) {
  StallWatchdog::Transfer transfer(watchdog_, [] {});
  for (const absl::Duration step :
       {absl::Hours(1), -absl::Hours(2), absl::Hours(1)}) {
    LetItLook([&] {
      transfer.Moved(StallWatchdog::kProgressBytes);
      StepWallClock(step);
    });
    EXPECT_FALSE(transfer.stalled()) << step;
  }
}

}  // namespace
}  // namespace backboned::rpc
