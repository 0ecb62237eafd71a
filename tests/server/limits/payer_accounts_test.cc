#include "server/limits/payer_accounts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

const Payer kPayer = {.principal = "ann", .session = "one"};
const Payer kOtherSession = {.principal = "ann", .session = "two"};

LimitScope ScopeOf(const absl::Status& refused) {
  const std::optional<Limit> limit = LimitOf(refused);
  EXPECT_TRUE(limit.has_value()) << refused;
  return limit.value_or(Limit{}).scope;
}

TEST(MemoryAccountTest, RefusesOverTheLimitWithTheNumbers) {
  MemoryAccount account("max-memory-bytes", 100);
  ASSERT_THAT(account.Charge(60), IsOk());
  const absl::Status refused = account.Charge(41);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("no room for 41 more bytes: this "
                                          "server uses 60 of its 100 of ")));
  EXPECT_EQ(LimitOf(refused)->requested, 101);
  EXPECT_EQ(LimitOf(account.Charge(kUnlimitedBytes))->requested,
            kUnlimitedBytes);
  EXPECT_THAT(account.Charge(40), IsOk());
  EXPECT_EQ(account.live_bytes(), 100);
}

TEST(MemoryAccountTest, GivesNoRetryDelayForWhatNeverFits) {
  MemoryAccount account("max-memory-bytes", 100);
  ASSERT_THAT(account.Charge(1), IsOk());
  EXPECT_GT(LimitOf(account.Charge(100))->retry_delay, absl::ZeroDuration());
  EXPECT_EQ(LimitOf(account.Charge(101))->retry_delay, absl::ZeroDuration());
}

TEST(MemoryAccountTest, KnowsItsPeak) {
  MemoryAccount account("max-memory-bytes");
  ASSERT_THAT(account.Charge(10), IsOk());
  ASSERT_THAT(account.Charge(50), IsOk());
  account.Refund(60);
  ASSERT_THAT(account.Charge(20), IsOk());
  EXPECT_EQ(account.live_bytes(), 20);
  EXPECT_EQ(account.peak_bytes(), 60);
}

TEST(MemoryAccountTest, TakesANewLimit) {
  MemoryAccount account("max-memory-bytes", 100);
  account.SetLimit(10);
  EXPECT_EQ(account.limit_bytes(), 10);
  EXPECT_EQ(account.Charge(11).code(), absl::StatusCode::kResourceExhausted);
}

TEST(PayerAccountsTest, ASessionHasOneAccountWhileAnythingCountsForIt) {
  PayerAccounts accounts(1000, 500, {});
  const std::shared_ptr<MemoryAccount> first = accounts.Of(kPayer);
  EXPECT_EQ(accounts.Of(kPayer), first);
  EXPECT_NE(accounts.Of(kOtherSession), first);
}

TEST(PayerAccountsTest, ASessionPaysForItsPrincipalToo) {
  PayerAccounts accounts(1000, 500, {});
  const auto one = accounts.Of(kPayer);
  const auto two = accounts.Of(kOtherSession);
  ASSERT_THAT(one->Charge(100), IsOk());
  ASSERT_THAT(two->Charge(20), IsOk());
  EXPECT_EQ(accounts.live_bytes(LimitScope::kSession, kPayer), 100);
  EXPECT_EQ(accounts.live_bytes(LimitScope::kPrincipal, kPayer), 120);
  one->Refund(100);
  two->Refund(20);
  EXPECT_EQ(accounts.live_bytes(LimitScope::kPrincipal, kPayer), 0);
}

TEST(PayerAccountsTest, LimitsNoPayerThatMayUseAll) {
  PayerAccounts accounts(1000, 500, {});
  EXPECT_EQ(accounts.live_bytes(LimitScope::kSession, kPayer), 0);
  EXPECT_THAT(accounts.Of(kPayer)->Charge(1001), IsOk());
}

TEST(PayerAccountsTest, RefusesASessionOverItsPart) {
  PayerAccounts accounts(1000, 500, {.session = 0.5});
  const auto account = accounts.Of(kPayer);
  ASSERT_THAT(account->Charge(400), IsOk());
  const absl::Status refused = account->Charge(200);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("this session uses 400 of its "
                                          "500 of max-memory-bytes")));
  EXPECT_EQ(ScopeOf(refused), LimitScope::kSession);
  EXPECT_THAT(accounts.Of(kOtherSession)->Charge(500), IsOk());
}

TEST(PayerAccountsTest, RefusesAPrincipalOverItsPartAndChargesNobody) {
  PayerAccounts accounts(1000, 500, {.principals = {{"ann", 0.3}}});
  const auto one = accounts.Of(kPayer);
  const auto two = accounts.Of(kOtherSession);
  ASSERT_THAT(one->Charge(200), IsOk());
  EXPECT_EQ(ScopeOf(two->Charge(200)), LimitScope::kPrincipal);
  EXPECT_EQ(two->live_bytes(), 0);
  EXPECT_EQ(accounts.live_bytes(LimitScope::kPrincipal, kPayer), 200);
}

TEST(PayerAccountsTest, LimitsMemoryOnGpusByItself) {
  PayerAccounts accounts(1000, 500, {.session = 0.8});
  const auto one = accounts.Of(kPayer);
  const auto two = accounts.Of(kOtherSession);
  ASSERT_THAT(one->Charge(800), IsOk());
  EXPECT_THAT(one->on_gpus()->Charge(401),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("this session uses 0 of its 400 of "
                                 "max-device-memory-bytes")));
  ASSERT_THAT(one->on_gpus()->Charge(400), IsOk());
  const absl::Status refused = two->on_gpus()->Charge(101);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted,
                                HasSubstr("this server uses 400 of its 500")));
  EXPECT_EQ(ScopeOf(refused), LimitScope::kServer);
  EXPECT_EQ(accounts.live_bytes_on_gpus(LimitScope::kPrincipal, kPayer), 400);
  EXPECT_EQ(accounts.live_bytes_on_gpus(LimitScope::kSession, kOtherSession),
            0);
}

TEST(PayerAccountsTest, TellsTheBytesOfEachPrincipal) {
  PayerAccounts accounts(1000, 500, {});
  const auto ann = accounts.Of(kPayer);
  const auto anns_other = accounts.Of({.principal = "ann", .session = "x"});
  const auto bert = accounts.Of({.principal = "bert"});
  ASSERT_THAT(ann->Charge(7), IsOk());
  ASSERT_THAT(anns_other->Charge(5), IsOk());
  ASSERT_THAT(bert->on_gpus()->Charge(3), IsOk());
  const auto live = accounts.LiveByPrincipal();
  ASSERT_EQ(live.size(), 2);
  EXPECT_EQ(live.at("ann").on_host, 12);
  EXPECT_EQ(live.at("ann").on_gpus, 0);
  EXPECT_EQ(live.at("bert").on_gpus, 3);
}

TEST(PayerAccountsTest, ForgetsSessionsThatAreGone) {
  PayerAccounts accounts(1000, 500, {});
  const auto kept = accounts.Of(kPayer);
  ASSERT_THAT(kept->Charge(7), IsOk());
  for (int i = 0; i < 1000; ++i) {
    accounts.Of({.principal = "ann", .session = absl::StrCat(i)});
  }
  EXPECT_EQ(accounts.Of(kPayer), kept);
  EXPECT_EQ(accounts.live_bytes(LimitScope::kSession, kPayer), 7);
  EXPECT_LT(accounts.known_sessions(), 130);
}

}  // namespace
}  // namespace backboned
