#include "server/limits/budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

const Payer kPayer = {.principal = "ann", .session = "one"};
const Payer kOtherSession = {.principal = "ann", .session = "two"};
const Payer kOtherPrincipal = {.principal = "bob", .session = "one"};
const Payer kServer = {.principal = std::string(kServerPrincipal)};

Budget::Options Of(int64_t limit, const Quotas& quotas = {}) {
  return {.name = "max-receive-bytes",
          .limit = limit,
          .quotas = quotas,
          .retry_delay = absl::Milliseconds(100)};
}

// Returns the scope of the limit of a refusal.
LimitScope ScopeOf(const absl::Status& refused) {
  const std::optional<Limit> limit = LimitOf(refused);
  EXPECT_TRUE(limit.has_value()) << refused;
  return limit.value_or(Limit{}).scope;
}

TEST(BudgetTest, TakesBytesUntilReservationIsGone) {
  Budget budget(Of(100));
  {
    absl::StatusOr<Budget::Reservation> reservation =
        budget.Reserve(kPayer, 60);
    ASSERT_THAT(reservation, IsOk());
    EXPECT_EQ(reservation->amount(), 60);
    EXPECT_EQ(budget.used(), 60);
  }
  EXPECT_EQ(budget.used(), 0);
}

TEST(BudgetTest, RefusesOverTheLimitWithTheNumbers) {
  Budget budget(Of(100));
  const auto held = budget.Reserve(kPayer, 60);
  const absl::Status refused = budget.Reserve(kPayer, 41).status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("no room for 41 more bytes: this server uses "
                                 "60 of its 100 of max-receive-bytes")));
  const std::optional<Limit> limit = LimitOf(refused);
  ASSERT_TRUE(limit.has_value());
  EXPECT_EQ(limit->name, "max-receive-bytes");
  EXPECT_EQ(limit->value, 100);
  EXPECT_EQ(limit->requested, 101);
  EXPECT_GT(limit->retry_delay, absl::ZeroDuration());
  EXPECT_EQ(budget.used(), 60);
}

TEST(BudgetTest, TakesExactlyTheLimit) {
  Budget budget(Of(100));
  EXPECT_THAT(budget.Reserve(kPayer, 100), IsOk());
}

TEST(BudgetTest, GivesNoRetryDelayForWhatNeverFits) {
  Budget budget(Of(100));
  const auto held = budget.Reserve(kPayer, 1);
  const auto delay_of = [&](int64_t amount) {
    return LimitOf(budget.Reserve(kPayer, amount).status())->retry_delay;
  };
  EXPECT_GT(delay_of(100), absl::ZeroDuration());
  EXPECT_EQ(delay_of(101), absl::ZeroDuration());
}

TEST(BudgetTest, NamesOneUnitAndMore) {
  Budget budget(Of(0));
  EXPECT_THAT(budget.Reserve(kPayer, 1).status().message(),
              HasSubstr("for 1 more byte:"));
  EXPECT_THAT(budget.Reserve(kPayer, 2).status().message(),
              HasSubstr("for 2 more bytes:"));
}

TEST(BudgetTest, NothingAlwaysFits) {
  Budget budget(Of(0));
  Budget::Reservation held;
  EXPECT_THAT(budget.Check(kPayer, 0), IsOk());
  EXPECT_THAT(budget.Reserve(kPayer, 0), IsOk());
  EXPECT_THAT(budget.Resize(held, kPayer, 0), IsOk());
}

TEST(BudgetTest, DoesNotOverflow) {
  Budget budget(Of(100));
  const auto held = budget.Reserve(kPayer, 60);
  const std::optional<Limit> limit =
      LimitOf(budget.Reserve(kPayer, kMax).status());
  ASSERT_TRUE(limit.has_value());
  EXPECT_EQ(limit->requested, kMax);
}

// R5, R12
TEST(BudgetTest, RefusesNegativeAmounts) {
  Budget budget(Of(100));
  auto held = budget.Reserve(kPayer, 60);
  const auto negative = StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("-1 bytes of max-receive-bytes"));
  EXPECT_THAT(budget.Reserve(kPayer, -1), negative);
  EXPECT_THAT(budget.Check(kPayer, -1), negative);
  EXPECT_THAT(budget.Resize(*held, kPayer, -1), negative);
  EXPECT_EQ(held->amount(), 60);
  EXPECT_EQ(budget.used(), 60);
}

TEST(BudgetTest, MovedReservationGivesBackOnce) {
  Budget budget(Of(100));
  Budget::Reservation outer;
  {
    Budget::Reservation inner = *budget.Reserve(kPayer, 60);
    outer = std::move(inner);
  }
  EXPECT_EQ(budget.used(), 60);
  outer = *budget.Reserve(kPayer, 10);
  EXPECT_EQ(budget.used(), 10);
  outer.Release();
  outer.Release();
  EXPECT_EQ(budget.used(), 0);
}

TEST(BudgetTest, RefusesASessionOverItsPartAndNoOther) {
  Budget budget(Of(100, {.session = 0.5}));
  const auto held = budget.Reserve(kPayer, 50);
  ASSERT_THAT(held, IsOk());
  const absl::Status refused = budget.Reserve(kPayer, 1).status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("this session uses 50 of its 50 of ")));
  EXPECT_EQ(ScopeOf(refused), LimitScope::kSession);
  EXPECT_THAT(budget.Reserve(kOtherSession, 50), IsOk());
  EXPECT_THAT(budget.Reserve(kOtherPrincipal, 50), IsOk());
}

TEST(BudgetTest, RefusesAPrincipalOverItsPartAndNoOther) {
  Budget budget(Of(100, {.principals = {{"ann", 0.25}}}));
  const auto held = budget.Reserve(kPayer, 20);
  const absl::Status refused = budget.Reserve(kOtherSession, 10).status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("this principal uses 20 of its 25 of ")));
  EXPECT_EQ(ScopeOf(refused), LimitScope::kPrincipal);
  EXPECT_THAT(budget.Reserve(kOtherPrincipal, 80), IsOk());
}

TEST(BudgetTest, RefusesOverTheLimitOfAll) {
  Budget budget(Of(100, {.session = 0.5}));
  const auto ann = budget.Reserve(kPayer, 50);
  const auto bob = budget.Reserve(kOtherPrincipal, 40);
  EXPECT_EQ(ScopeOf(budget.Reserve(kOtherSession, 20).status()),
            LimitScope::kServer);
}

TEST(BudgetTest, GivesNoRetryDelayForWhatNeverFitsAPart) {
  Budget budget(Of(100, {.session = 0.5}));
  const std::optional<Limit> limit =
      LimitOf(budget.Reserve(kPayer, 51).status());
  ASSERT_TRUE(limit.has_value());
  EXPECT_EQ(limit->retry_delay, absl::ZeroDuration());
}

TEST(BudgetTest, ThePartOfASmallLimitIsOne) {
  Budget budget(Of(1, {.session = 0.5}));
  EXPECT_THAT(budget.Reserve(kPayer, 1), IsOk());
}

TEST(BudgetTest, TheServerMayUseAllAndNoMore) {
  Budget budget(Of(100, {.session = 0.5}));
  EXPECT_THAT(budget.Reserve(kServer, 100), IsOk());
  EXPECT_THAT(budget.Reserve(kServer, 101),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(QuotasTest, APayerWithoutAQuotaMayUseAll) {
  const Quotas quotas = {.principals = {{"ann", 0.5}}};
  EXPECT_EQ(quotas.Fraction(LimitScope::kPrincipal, kPayer), 0.5);
  EXPECT_EQ(quotas.Fraction(LimitScope::kServer, kPayer), 1);
  EXPECT_EQ(quotas.Fraction(LimitScope::kPrincipal, kOtherPrincipal), 1);
  EXPECT_EQ(quotas.Part(LimitScope::kPrincipal, kOtherPrincipal, kMax), kMax);
}

TEST(QuotasTest, APrincipalWithoutAQuotaHasThatOfAll) {
  const Quotas quotas = {.principal = 0.25, .principals = {{"ann", 0.5}}};
  EXPECT_EQ(quotas.Fraction(LimitScope::kPrincipal, kPayer), 0.5);
  EXPECT_EQ(quotas.Fraction(LimitScope::kPrincipal, kOtherPrincipal), 0.25);
  EXPECT_EQ(quotas.Fraction(LimitScope::kPrincipal, kServer), 1);
}

TEST(QuotasTest, APartIsRoundedDownButNotToNothing) {
  const Quotas quotas = {.session = 0.3};
  EXPECT_EQ(quotas.Part(LimitScope::kSession, kPayer, 9), 2);
  EXPECT_EQ(quotas.Part(LimitScope::kSession, kPayer, 1), 1);
}

TEST(BudgetTest, AReservationGrowsAsFarAsThereIsRoomAndShrinksAlways) {
  Budget budget(Of(100, {.session = 0.5}));
  Budget::Reservation held;
  EXPECT_THAT(budget.Resize(held, kPayer, 40), IsOk());
  EXPECT_THAT(budget.Resize(held, kPayer, 50), IsOk());
  EXPECT_EQ(LimitOf(budget.Resize(held, kPayer, 51))->requested, 51);
  EXPECT_EQ(held.amount(), 50);
  EXPECT_THAT(budget.Resize(held, kPayer, 10), IsOk());
  EXPECT_EQ(budget.used(LimitScope::kSession, kPayer), 10);
  held.Release();
  EXPECT_EQ(budget.used(), 0);
}

TEST(BudgetTest, KnowsWhoUsesHowMuch) {
  Budget budget(Of(100));
  const auto one = budget.Reserve(kPayer, 10);
  const auto two = budget.Reserve(kOtherSession, 20);
  EXPECT_EQ(budget.used(LimitScope::kSession, kPayer), 10);
  EXPECT_EQ(budget.used(LimitScope::kPrincipal, kPayer), 30);
  EXPECT_EQ(budget.used(LimitScope::kSession, kOtherPrincipal), 0);
}

TEST(BudgetTest, NeverPassesTheLimitFromManyThreads) {
  Budget budget(Of(100));
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&budget] {
      for (int round = 0; round < 2000; ++round) {
        const auto reservation = budget.Reserve(kPayer, 30);
        ASSERT_LE(budget.used(), 100);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(budget.used(), 0);
}

}  // namespace
}  // namespace backboned
