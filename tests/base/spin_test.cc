#include "base/spin.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/time/time.h"
#include "tests/testing/test_clock.h"

namespace backboned {
namespace {

class SpinTest : public ::testing::Test {
 protected:
  // Waits for what comes after a time, when each poll takes 0.1 ms. Returns the
  // number of polls.
  int Wait(Spin& spin, absl::Duration time) {
    const absl::Time comes = clock_.Now() + time;
    int polls = 0;
    const bool came = spin.Poll([&] {
      ++polls;
      if (clock_.Now() >= comes) return true;
      clock_.Advance(absl::Microseconds(100));
      return false;
    });
    if (!came) {
      clock_.Advance(std::max(comes - clock_.Now(), absl::ZeroDuration()));
      spin.Woke();
    }
    return polls;
  }

  TestClock clock_;
};

TEST_F(SpinTest, PollsWhileWaitsAreShort) {
  Spin spin(/*may_poll=*/true, clock_);
  EXPECT_EQ(Wait(spin, absl::Microseconds(300)), 1);  // Nothing is known yet.
  EXPECT_EQ(Wait(spin, absl::Microseconds(300)), 4);
  EXPECT_EQ(Wait(spin, absl::Microseconds(900)), 10);
}

TEST_F(SpinTest, SleepsAfterALongWait) {
  Spin spin(/*may_poll=*/true, clock_);
  Wait(spin, absl::Microseconds(300));
  const int most = Wait(spin, absl::Seconds(1));
  EXPECT_GE(most, 10);
  EXPECT_LE(most, 12);
  EXPECT_EQ(Wait(spin, absl::Seconds(1)), 1);
  EXPECT_EQ(Wait(spin, absl::Microseconds(300)), 1);
  EXPECT_EQ(Wait(spin, absl::Microseconds(300)), 4);
}

TEST_F(SpinTest, TakesAtOnceWhatIsThere) {
  Spin spin(/*may_poll=*/true, clock_);
  EXPECT_EQ(Wait(spin, absl::ZeroDuration()), 1);
  EXPECT_EQ(Wait(spin, absl::ZeroDuration()), 1);
}

TEST_F(SpinTest, PollsOnceWhereItMayNot) {
  Spin spin(/*may_poll=*/false, clock_);
  EXPECT_EQ(Wait(spin, absl::Microseconds(300)), 1);
  EXPECT_EQ(Wait(spin, absl::Microseconds(300)), 1);
}

}  // namespace
}  // namespace backboned
