#include "server/callers/rights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

constexpr Ownership kAnnas = {.owner = "anna", .name = "net"};
constexpr Ownership kAnnasShared = {
    .owner = "anna", .name = "net", .shared = true};
constexpr Ownership kServers = {.owner = "server", .name = "net"};

TEST(PrincipalTest, IsANameThatIsNotTheServersOwn) {
  for (const char* name : {"anna", "a", "0", "a.b_c-d", "locals"}) {
    EXPECT_THAT(CheckPrincipal(name), IsOk()) << name;
  }
  for (const std::string& name :
       {std::string("local"), std::string("server"), std::string(""),
        std::string("Anna"), std::string("-a"), std::string("a b"),
        std::string(65, 'a')}) {
    EXPECT_THAT(CheckPrincipal(name),
                StatusIs(absl::StatusCode::kInvalidArgument))
        << name;
  }
}

TEST(RightsTest, OthersReadWhatIsShared) {
  EXPECT_TRUE(MayRead(kAnnas, "anna"));
  EXPECT_FALSE(MayRead(kAnnas, "bert"));
  EXPECT_TRUE(MayRead(kAnnasShared, "bert"));
  EXPECT_TRUE(MayRead(kServers, "bert"));
  EXPECT_TRUE(MayRead(kAnnas, "local"));
}

TEST(RightsTest, OnlyOwnersAndAdminsChange) {
  for (const Access access : {Access::kWrite, Access::kManage}) {
    for (const char* principal : {"anna", "local"}) {
      EXPECT_THAT(CheckRight(kAnnasShared, principal, access), IsOk());
    }
    EXPECT_THAT(CheckRight(kAnnasShared, "bert", access),
                StatusIs(absl::StatusCode::kPermissionDenied,
                         HasSubstr("\"anna/net\" belongs to anna")));
    EXPECT_THAT(CheckRight(kServers, "bert", access),
                StatusIs(absl::StatusCode::kPermissionDenied));
  }
  EXPECT_THAT(CheckRight(kAnnasShared, "bert", Access::kRead), IsOk());
}

TEST(RightsTest, AFeatureCacheIsItsOwners) {
  EXPECT_TRUE(UsesCache(kAnnas, "anna"));
  EXPECT_FALSE(UsesCache(kAnnasShared, "bert"));
  EXPECT_FALSE(UsesCache(kAnnas, "local"));
  EXPECT_TRUE(UsesCache(kServers, "bert"));
}

}  // namespace
}  // namespace backboned
