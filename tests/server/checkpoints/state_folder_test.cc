#include "server/process/state_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(StateFolderTest, LeavesAWritableFolderEmpty) {
  std::string folder = ::testing::TempDir() + "backboned.XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  EXPECT_THAT(CheckStateFolder(folder), IsOk());
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove(folder);
}

// No user can make files there, not even root.
TEST(StateFolderTest, RefusesAFolderThatCannotBeWritten) {
  EXPECT_THAT(CheckStateFolder("/proc/self"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("--state-dir /proc/self"),
                             HasSubstr("in which user "))));
}

TEST(StateFolderTest, RefusesWhatIsNotThere) {
  EXPECT_THAT(CheckStateFolder("/nowhere"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("No such file or directory")));
}

}  // namespace
}  // namespace backboned
