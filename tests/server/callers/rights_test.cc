#include "server/callers/rights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

constexpr Ownership kAnnas = {.owner = "anna", .name = "net"};
constexpr Ownership kAnnasShared = {
    .owner = "anna", .name = "net", .shared = true};
constexpr Ownership kServers = {.owner = "server", .name = "net"};

const Caller kAnna = {.principal = "anna"};
const Caller kBert = {.principal = "bert"};
const Caller kLocal = {.principal = "local", .rights = Rights::kAdmin};
const Caller kReader = {.principal = "anna", .rights = Rights::kInfer};

constexpr Access kAll[] = {Access::kAny, Access::kCreate, Access::kRead,
                           Access::kWrite, Access::kManage};

TEST(RightsTest, WhoMayInferChangesNothing) {
  for (const Access access : kAll) {
    EXPECT_THAT(CheckMethod(kAnna, "Step", access), IsOk());
    EXPECT_THAT(CheckMethod(kLocal, "Step", access), IsOk());
    if (access == Access::kAny || access == Access::kRead) {
      EXPECT_THAT(CheckMethod(kReader, "Step", access), IsOk());
      EXPECT_THAT(CheckRight(kAnnas, kReader, access), IsOk());
      continue;
    }
    EXPECT_THAT(CheckMethod(kReader, "Step", access),
                StatusIs(absl::StatusCode::kPermissionDenied,
                         HasSubstr("anna has the right to infer, and Step "
                                   "needs the right to train")));
    EXPECT_THAT(CheckRight(kAnnas, kReader, access),
                StatusIs(absl::StatusCode::kPermissionDenied));
  }
}

TEST(RightsTest, OthersReadWhatIsShared) {
  EXPECT_TRUE(MayRead(kAnnas, kAnna));
  EXPECT_FALSE(MayRead(kAnnas, kBert));
  EXPECT_TRUE(MayRead(kAnnasShared, kBert));
  EXPECT_TRUE(MayRead(kServers, kBert));
  EXPECT_TRUE(MayRead(kAnnas, kLocal));
}

TEST(RightsTest, OnlyOwnersAndAdminsChange) {
  for (const Access access : {Access::kWrite, Access::kManage}) {
    for (const Caller& caller : {kAnna, kLocal}) {
      EXPECT_THAT(CheckRight(kAnnasShared, caller, access), IsOk());
    }
    EXPECT_THAT(CheckRight(kAnnasShared, kBert, access),
                StatusIs(absl::StatusCode::kPermissionDenied,
                         HasSubstr("\"anna/net\" belongs to anna")));
    EXPECT_THAT(CheckRight(kServers, kBert, access),
                StatusIs(absl::StatusCode::kPermissionDenied));
  }
  EXPECT_THAT(CheckRight(kAnnasShared, kBert, Access::kRead), IsOk());
}

TEST(RightsTest, AFeatureCacheIsItsOwners) {
  EXPECT_TRUE(UsesCache(kAnnas, "anna"));
  EXPECT_FALSE(UsesCache(kAnnasShared, "bert"));
  EXPECT_FALSE(UsesCache(kAnnas, "local"));
  EXPECT_TRUE(UsesCache(kServers, "bert"));
}

}  // namespace
}  // namespace backboned
