#include "server/byte_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backbones/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

TEST(ByteBudgetTest, TakesBytesUntilReservationIsGone) {
  ByteBudget budget("max-receive-bytes", 100);
  {
    absl::StatusOr<ByteBudget::Reservation> reservation = budget.Reserve(60);
    ASSERT_THAT(reservation, IsOk());
    EXPECT_EQ(reservation->bytes(), 60);
    EXPECT_EQ(budget.used_bytes(), 60);
  }
  EXPECT_EQ(budget.used_bytes(), 0);
}

TEST(ByteBudgetTest, RefusesOverTheLimitWithTheNumbers) {
  ByteBudget budget("max-receive-bytes", 100);
  const auto held = budget.Reserve(60);
  const absl::Status refused = budget.Reserve(41).status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("41 bytes do not fit into max-receive-bytes: "
                                 "60 of 100 bytes are in use")));
  const std::optional<Limit> limit = LimitOf(refused);
  ASSERT_TRUE(limit.has_value());
  EXPECT_EQ(limit->name, "max-receive-bytes");
  EXPECT_EQ(limit->value, 100);
  EXPECT_EQ(limit->requested, 101);
  EXPECT_GT(limit->retry_delay, absl::ZeroDuration());
  EXPECT_EQ(budget.used_bytes(), 60);
}

TEST(ByteBudgetTest, TakesExactlyTheLimit) {
  ByteBudget budget("max-receive-bytes", 100);
  EXPECT_THAT(budget.Reserve(100), IsOk());
}

TEST(ByteBudgetTest, GivesNoRetryDelayForWhatNeverFits) {
  ByteBudget budget("max-receive-bytes", 100);
  const std::optional<Limit> limit = LimitOf(budget.Reserve(101).status());
  ASSERT_TRUE(limit.has_value());
  EXPECT_EQ(limit->retry_delay, absl::ZeroDuration());
}

TEST(ByteBudgetTest, DoesNotOverflow) {
  ByteBudget budget("max-receive-bytes", 100);
  const auto held = budget.Reserve(60);
  const std::optional<Limit> limit = LimitOf(budget.Reserve(kMax).status());
  ASSERT_TRUE(limit.has_value());
  EXPECT_EQ(limit->requested, kMax);
}

TEST(ByteBudgetTest, MovedReservationGivesBackOnce) {
  ByteBudget budget("max-receive-bytes", 100);
  ByteBudget::Reservation outer;
  {
    ByteBudget::Reservation inner = *budget.Reserve(60);
    outer = std::move(inner);
  }
  EXPECT_EQ(budget.used_bytes(), 60);
  outer = *budget.Reserve(10);
  EXPECT_EQ(budget.used_bytes(), 10);
  outer.Release();
  outer.Release();
  EXPECT_EQ(budget.used_bytes(), 0);
}

TEST(ByteBudgetTest, NeverPassesTheLimitFromManyThreads) {
  ByteBudget budget("max-receive-bytes", 100);
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&budget] {
      for (int round = 0; round < 2000; ++round) {
        const auto reservation = budget.Reserve(30);
        ASSERT_LE(budget.used_bytes(), 100);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(budget.used_bytes(), 0);
}

}  // namespace
}  // namespace backboned
