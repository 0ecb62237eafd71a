#include "server/rpc/transport/gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "tests/testing/status_matchers.h"

namespace backboned::rpc {
namespace {

const Payer kPayer = {.principal = "ann", .session = "one"};

absl::Duration Since(absl::Time start) {
  return MonotonicClock().Now() - start;
}

TEST(GateTest, CountsTheCallsInside) {
  Gate gate(2, {});
  {
    const auto one = gate.Enter(kPayer);
    const auto two = gate.Enter(kPayer);
    EXPECT_EQ(gate.places().used(), 2);
    EXPECT_THAT(gate.Enter(kPayer),
                StatusIs(absl::StatusCode::kResourceExhausted));
  }
  EXPECT_EQ(gate.places().used(), 0);
}

TEST(GateTest, WaitsUntilTheLastCallHasLeft) {
  Gate gate(2, {});
  absl::StatusOr<Gate::Pass> one = gate.Enter(kPayer);
  absl::StatusOr<Gate::Pass> two = gate.Enter(kPayer);
  std::atomic<bool> leaves = false;
  std::thread caller([&] {
    one->Release();
    std::this_thread::yield();
    leaves = true;
    two->Release();
  });
  gate.WaitUntilEmpty(absl::Minutes(1));
  EXPECT_TRUE(leaves);
  caller.join();
}

TEST(GateTest, WaitsForACallNoLongerThanTheTimeout) {
  Gate gate(2, {});
  const auto pass = gate.Enter(kPayer);
  const absl::Time start = MonotonicClock().Now();
  gate.WaitUntilEmpty(absl::Milliseconds(20));
  EXPECT_GE(Since(start), absl::Milliseconds(20));
}

TEST(GateTest, IsQuietAfterOnePauseWithoutACall) {
  Gate gate(2, {});
  gate.Drain();
  EXPECT_THAT(gate.Enter(kPayer), StatusIs(absl::StatusCode::kUnavailable));
  const absl::Time start = MonotonicClock().Now();
  gate.WaitUntilQuiet(absl::Milliseconds(1), absl::InfiniteDuration());
  EXPECT_GE(Since(start), absl::Milliseconds(1));
}

TEST(GateTest, WaitsForQuietUntilTheTimeoutWhileCallsCome) {
  Gate gate(2, {});
  gate.Drain();
  std::atomic<bool> stop = false;
  std::thread caller([&] {
    while (!stop) EXPECT_FALSE(gate.Enter(kPayer).ok());
  });
  bool waited = false;
  for (int round = 0; round < 20 && !waited; ++round) {
    // Quiet comes earlier only if the caller has no turn for a whole pause.
    const absl::Time start = MonotonicClock().Now();
    gate.WaitUntilQuiet(absl::Milliseconds(20), absl::Milliseconds(60));
    waited = Since(start) >= absl::Milliseconds(60);
  }
  stop = true;
  caller.join();
  EXPECT_TRUE(waited);
}

}  // namespace
}  // namespace backboned::rpc
