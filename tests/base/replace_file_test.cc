#include "base/replace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

class ReplaceFileTest : public ::testing::Test {
 protected:
  ~ReplaceFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Content() const {
    std::ifstream file(path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  mode_t Mode() const {
    struct stat file = {};
    EXPECT_EQ(stat(path_.c_str(), &file), 0);
    return file.st_mode & 07777;
  }

  const std::string folder_ = [] {
    std::string pattern = ::testing::TempDir() + "replace.XXXXXX";
    return std::string(mkdtemp(pattern.data()));
  }();
  const std::string path_ = folder_ + "/file";
};

TEST_F(ReplaceFileTest, WritesANewFileForItsOwnerAlone) {
  ASSERT_THAT(ReplaceFile(path_, "one\n"), IsOk());
  EXPECT_EQ(Content(), "one\n");
  EXPECT_EQ(Mode(), 0600u);
}

TEST_F(ReplaceFileTest, KeepsTheModeAndLeavesNothingElse) {
  ASSERT_THAT(ReplaceFile(path_, "one"), IsOk());
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  ASSERT_THAT(ReplaceFile(path_, ""), IsOk());
  EXPECT_EQ(Content(), "");
  EXPECT_EQ(Mode(), 0640u);
  const std::filesystem::directory_iterator files(folder_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(ReplaceFileTest, GivesAModeThatIsSaid) {
  ASSERT_THAT(ReplaceFile(path_, "one", 0644), IsOk());
  EXPECT_EQ(Mode(), 0644u);
  ASSERT_THAT(ReplaceFile(path_, "two", 0640), IsOk());
  EXPECT_EQ(Mode(), 0640u);
}

TEST_F(ReplaceFileTest, ANewFileOfRootsIsItsFoldersOwners) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_EQ(chown(folder_.c_str(), 1, 1), 0);
  ASSERT_THAT(ReplaceFile(path_, "one"), IsOk());
  struct stat file = {};
  ASSERT_EQ(stat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_uid, 1u);
  EXPECT_EQ(file.st_gid, 1u);
}

TEST_F(ReplaceFileTest, ALinkStays) {
  const std::string link = folder_ + "/link";
  ASSERT_THAT(ReplaceFile(path_, "one"), IsOk());
  std::filesystem::create_symlink("file", link);
  ASSERT_THAT(ReplaceFile(link, "two"), IsOk());
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(Content(), "two");
}

TEST_F(ReplaceFileTest, MakesNoFileThatIsThere) {
  ASSERT_THAT(MakeFile(path_, "one"), IsOk());
  EXPECT_EQ(Mode(), 0600u);
  EXPECT_THAT(MakeFile(path_, "two"),
              StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_EQ(Content(), "one");
}

TEST_F(ReplaceFileTest, NamesAFileThatCannotBeWritten) {
  EXPECT_THAT(ReplaceFile(folder_ + "/none/file", ""),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("none/file: No such file or directory")));
  std::filesystem::create_directory(path_);
  EXPECT_THAT(
      ReplaceFile(path_, ""),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(path_ + ": ")));
  const std::filesystem::directory_iterator files(folder_);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

}  // namespace
}  // namespace backboned
