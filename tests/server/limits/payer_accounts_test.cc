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

TEST(PayerAccountsTest, ASessionHasOneAccountWhileAnythingCountsForIt) {
  PayerAccounts accounts(1000, {});
  const std::shared_ptr<MemoryAccount> first = accounts.Of(kPayer);
  EXPECT_EQ(accounts.Of(kPayer), first);
  EXPECT_NE(accounts.Of(kOtherSession), first);
}

TEST(PayerAccountsTest, ASessionPaysForItsPrincipalToo) {
  PayerAccounts accounts(1000, {});
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

TEST(PayerAccountsTest, RefusesASessionOverItsPart) {
  PayerAccounts accounts(1000, {.session = 0.5});
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
  PayerAccounts accounts(1000, {.principals = {{"ann", 0.3}}});
  const auto one = accounts.Of(kPayer);
  const auto two = accounts.Of(kOtherSession);
  ASSERT_THAT(one->Charge(200), IsOk());
  EXPECT_EQ(ScopeOf(two->Charge(200)), LimitScope::kPrincipal);
  EXPECT_EQ(two->live_bytes(), 0);
  EXPECT_EQ(accounts.live_bytes(LimitScope::kPrincipal, kPayer), 200);
}

TEST(PayerAccountsTest, ForgetsSessionsThatAreGone) {
  PayerAccounts accounts(1000, {});
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
