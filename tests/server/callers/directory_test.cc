#include "server/callers/directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

class DirectoryTest : public ::testing::Test {
 protected:
  NumberByPrincipal quotas_ = {{"anna", 0.5}, {"carl", 0.5}};
  NumberByPrincipal shares_ = {{"anna", 4}};
  Directory directory_{quotas_, shares_};
};

TEST_F(DirectoryTest, WithoutUsersEverybodyMayTrain) {
  EXPECT_THAT(directory_.Find({.name = "anna"}, kNow),
              IsOkAndHolds(Caller{.principal = "anna"}));
  EXPECT_THAT(directory_.Find({.name = "anna", .is_account = true}, kNow),
              IsOkAndHolds(Caller{.principal = "anna"}));
  EXPECT_THAT(
      directory_.Find({.name = "local"}, kNow),
      IsOkAndHolds(Caller{.principal = "local", .rights = Rights::kAdmin}));
}

TEST_F(DirectoryTest, AnAccountsNameIsAPrincipals) {
  for (const char* account : {"local", "server", "Anna", "anna$"}) {
    const auto caller =
        directory_.Find({.name = account, .is_account = true}, kNow);
    EXPECT_THAT(caller, StatusIs(absl::StatusCode::kUnauthenticated))
        << account;
    EXPECT_EQ(ReasonOf(caller.status()), Reason::kIdentityRefused);
  }
}

TEST_F(DirectoryTest, OnlyUsersMayCall) {
  directory_.SetUsers({{"anna", {.rights = Rights::kInfer}}, {"bert", {}}});
  EXPECT_THAT(
      directory_.Find({.name = "anna"}, kNow),
      IsOkAndHolds(Caller{.principal = "anna", .rights = Rights::kInfer}));
  EXPECT_THAT(directory_.Find({.name = "bert", .is_account = true}, kNow),
              IsOkAndHolds(Caller{.principal = "bert"}));
  const auto carl = directory_.Find({.name = "carl"}, kNow);
  EXPECT_THAT(carl, StatusIs(absl::StatusCode::kPermissionDenied,
                             HasSubstr("\"carl\" is no user")));
  EXPECT_EQ(ReasonOf(carl.status()), Reason::kNotPermitted);
  EXPECT_THAT(
      directory_.Find({.name = "local"}, kNow),
      IsOkAndHolds(Caller{.principal = "local", .rights = Rights::kAdmin}));
  directory_.SetUsers({});
  EXPECT_THAT(directory_.Find({.name = "anna"}, kNow),
              StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST_F(DirectoryTest, AnAccountIsTheUserThatHasIt) {
  directory_.SetUsers({{"anna", {.account = "amiller"}}, {"bert", {}}});
  EXPECT_THAT(directory_.Find({.name = "amiller", .is_account = true}, kNow),
              IsOkAndHolds(Caller{.principal = "anna"}));
  EXPECT_THAT(directory_.Find({.name = "anna", .is_account = true}, kNow),
              StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(directory_.Find({.name = "amiller"}, kNow),
              StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(directory_.Find({.name = "local", .is_account = true}, kNow),
              StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST_F(DirectoryTest, AUsersTimeEnds) {
  directory_.SetUsers({{"anna", {.expires = kNow}}});
  EXPECT_THAT(directory_.Find({.name = "anna"}, kNow - absl::Seconds(1)),
              IsOk());
  EXPECT_THAT(directory_.Find({.name = "anna"}, kNow),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("anna is a user of this server until")));
}

TEST_F(DirectoryTest, ATokenEnds) {
  const Identity identity = {.name = "anna", .token = 2, .expires = kNow};
  EXPECT_THAT(directory_.Find(identity, kNow - absl::Seconds(1)), IsOk());
  const auto late = directory_.Find(identity, kNow);
  EXPECT_THAT(late, StatusIs(absl::StatusCode::kUnauthenticated,
                             HasSubstr("the token of anna expired at 2027-")));
  EXPECT_EQ(ReasonOf(late.status()), Reason::kIdentityRefused);
}

TEST_F(DirectoryTest, ATokenIsReplaced) {
  directory_.SetUsers({{"anna", {.token = 2}}, {"bert", {}}});
  EXPECT_THAT(directory_.Find({.name = "anna", .token = 2}, kNow), IsOk());
  EXPECT_THAT(directory_.Find({.name = "anna"}, kNow), IsOk());
  for (const auto& [name, token] :
       {std::pair("anna", 1), std::pair("anna", 3), std::pair("bert", 1)}) {
    EXPECT_THAT(directory_.Find({.name = name, .token = token}, kNow),
                StatusIs(absl::StatusCode::kUnauthenticated,
                         HasSubstr("was replaced or withdrawn")));
  }
}

TEST_F(DirectoryTest, UsersHaveQuotasAndShares) {
  directory_.SetUsers({{"anna", {.share = 2}}, {"bert", {.quota = 0.1}}});
  EXPECT_EQ(quotas_.Find("anna"), 0.5);
  EXPECT_EQ(quotas_.Find("bert"), 0.1);
  EXPECT_EQ(quotas_.Find("carl"), 0.5);
  EXPECT_EQ(shares_.Find("anna"), 2);
  directory_.SetUsers({});
  EXPECT_EQ(quotas_.Find("bert"), std::nullopt);
  EXPECT_EQ(shares_.Find("anna"), 4);
}

}  // namespace
}  // namespace backboned
