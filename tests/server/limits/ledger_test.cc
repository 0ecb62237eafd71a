#include "server/limits/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"

namespace backboned {
namespace {

const Payer kOne = {"ann", "one"};
const Payer kTwo = {"ann", "two"};
const Payer kOther = {"bob", "one"};

TEST(LedgerTest, CountsForSessionPrincipalAndAll) {
  Ledger<int64_t> ledger;
  for (int64_t* amount : ledger.Of(kOne)) *amount += 5;
  for (int64_t* amount : ledger.Of(kTwo)) *amount += 2;
  for (int64_t* amount : ledger.Of(kOther)) *amount += 1;
  EXPECT_EQ(ledger.Get(LimitScope::kSession, kOne), 5);
  EXPECT_EQ(ledger.Get(LimitScope::kPrincipal, kOne), 7);
  EXPECT_EQ(ledger.Get(LimitScope::kPrincipal, kOther), 1);
  EXPECT_EQ(ledger.Get(LimitScope::kServer, kOther), 8);
  EXPECT_EQ(ledger.all(), 8);
}

TEST(LedgerTest, KnowsNothingOfOthers) {
  Ledger<int64_t> ledger;
  *ledger.Of(kOne)[0] = 5;
  EXPECT_EQ(ledger.Find(LimitScope::kSession, kTwo), nullptr);
  EXPECT_EQ(ledger.Find(LimitScope::kPrincipal, kOther), nullptr);
  EXPECT_EQ(ledger.Get(LimitScope::kSession, kTwo), 0);
}

TEST(LedgerTest, ForgetsIdleSessionsOnceThereAreMany) {
  Ledger<int64_t> ledger;
  for (int64_t* amount : ledger.Of(kOne)) *amount = 5;
  for (int i = 0; i < 10000; ++i) {
    ledger.Of({absl::StrCat("principal", i), "s"});
    ledger.ForgetIdle();
    EXPECT_LE(ledger.session_count(), 64);
  }
  EXPECT_EQ(ledger.Get(LimitScope::kSession, kOne), 5);
  EXPECT_EQ(ledger.Get(LimitScope::kPrincipal, kOne), 5);
  EXPECT_EQ(ledger.Find(LimitScope::kPrincipal, {"principal0", "s"}), nullptr);
}

TEST(LedgerTest, WalksOnlyWhenThereAreTwiceAsManyAsWereLeft) {
  Ledger<int64_t> ledger;
  for (int i = 0; i < 100; ++i) *ledger.Of({"ann", absl::StrCat(i)})[0] = 1;
  ledger.ForgetIdle();  // All are in use: the next walk is at 200.
  ledger.Of(kOne);
  ledger.ForgetIdle();
  EXPECT_EQ(ledger.session_count(), 101);
  for (int i = 0; i < 99; ++i) ledger.Of({"bob", absl::StrCat(i)});
  ledger.ForgetIdle();
  EXPECT_EQ(ledger.session_count(), 100);
}

struct IsSpare {
  bool operator()(int amount) const { return amount < 0; }
};

TEST(LedgerTest, ForgetsByAnotherRule) {
  Ledger<int, IsSpare> ledger;
  for (int i = 0; i < 64; ++i) *ledger.Of({"ann", absl::StrCat(i)})[0] = i - 4;
  ledger.ForgetIdle();
  EXPECT_EQ(ledger.session_count(), 60);
}

}  // namespace
}  // namespace backboned
