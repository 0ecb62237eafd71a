#include "server/checkpoints/state_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

namespace fs = std::filesystem;

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

std::string HexDigest(std::string_view text) {
  Sha256 digest;
  digest.Update(std::as_bytes(std::span(text)));
  return digest.TakeHex();
}

class StateFolderTest : public ::testing::Test {
 protected:
  StateFolderTest() : path_(::testing::TempDir() + "state.XXXXXX") {
    EXPECT_NE(mkdtemp(path_.data()), nullptr);
  }
  ~StateFolderTest() override {
    folder_.reset();
    fs::remove_all(path_);
  }

  // Closes the folder, as the end of a server does, and opens it again.
  StateFolder& Open() {
    folder_.reset();
    absl::StatusOr<std::unique_ptr<StateFolder>> folder =
        StateFolder::Open(path_);
    EXPECT_THAT(folder.status(), IsOk());
    folder_ = *std::move(folder);
    return *folder_;
  }

  // Returns the error of a second server.
  absl::Status OpenStatus() { return StateFolder::Open(path_).status(); }

  // Writes a blob of `text`, and returns its name.
  std::string WriteBlob(std::string_view text) {
    const std::span<const std::byte> piece = std::as_bytes(std::span(text));
    EXPECT_THAT(folder_->WriteBlob(HexDigest(text), std::span(&piece, 1)),
                IsOk());
    return HexDigest(text);
  }

  std::string WriteRecord(std::string_view text) {
    absl::StatusOr<std::string> name = folder_->WriteRecord(text);
    EXPECT_THAT(name.status(), IsOk());
    return *name;
  }

  std::vector<std::string> Files(const std::string& drawer) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path_ + "/" + drawer)) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  void Put(const std::string& file, std::string_view text) const {
    std::ofstream(path_ + "/" + file) << text;
  }

  std::string path_;
  std::unique_ptr<StateFolder> folder_;
};

TEST_F(StateFolderTest, KeepsBlobsAndRecords) {
  Open();
  const std::string blob = WriteBlob("tensors");
  const std::string record = WriteRecord("what they are");
  StateFolder& again = Open();
  EXPECT_TRUE(again.HasBlob(blob, 7));
  EXPECT_FALSE(again.HasBlob(blob, 8));
  EXPECT_FALSE(again.HasBlob(record, 7));
  absl::StatusOr<std::vector<StateFolder::StoredRecord>> records =
      again.ReadRecords();
  ASSERT_THAT(records.status(), IsOk());
  ASSERT_THAT(*records, SizeIs(1));
  EXPECT_EQ(records->front().sha256, record);
  EXPECT_EQ(records->front().text, "what they are");
  EXPECT_THAT(Files("aside"), IsEmpty());
}

TEST_F(StateFolderTest, IsItsOwnersAlone) {
  Open();
  const std::string blob = WriteBlob("tensors");
  for (const char* const name : {"blobs", "records", "aside"}) {
    struct stat about = {};
    ASSERT_EQ(stat((path_ + "/" + name).c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 0777, 0700) << name;
  }
  struct stat about = {};
  ASSERT_EQ(stat((path_ + "/blobs/" + blob + ".safetensors").c_str(), &about),
            0);
  EXPECT_EQ(about.st_mode & 0777, 0600);
}

TEST_F(StateFolderTest, RemovesRecordsAndBlobs) {
  StateFolder& folder = Open();
  const std::string blob = WriteBlob("tensors");
  const std::string record = WriteRecord("what they are");
  EXPECT_THAT(folder.RemoveRecord(record), IsOk());
  EXPECT_THAT(folder.RemoveRecord(record), IsOk());  // It is gone.
  folder.RemoveBlob(blob);
  EXPECT_THAT(Files("records"), IsEmpty());
  EXPECT_THAT(Files("blobs"), IsEmpty());
}

TEST_F(StateFolderTest, ServesOneServerAtATime) {
  Open();
  EXPECT_THAT(OpenStatus(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr(path_),
                             HasSubstr("is used by another server"))));
  folder_.reset();
  EXPECT_THAT(OpenStatus(), IsOk());
}

TEST_F(StateFolderTest, RefusesANewerFormat) {
  Open();
  folder_.reset();
  Put("format", "2\n");
  EXPECT_THAT(OpenStatus(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has format 2, of a newer server")));
  Put("format", "none\n");
  EXPECT_THAT(OpenStatus(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                     HasSubstr("has no number")));
}

TEST_F(StateFolderTest, RemovesWhatACrashLeftHalfWritten) {
  Open();
  folder_.reset();
  Put("blobs/.0123", "half");
  Put("records/.4567", "half");
  Open();
  EXPECT_THAT(Files("blobs"), IsEmpty());
  EXPECT_THAT(Files("records"), IsEmpty());
}

TEST_F(StateFolderTest, SetsTornRecordsAside) {
  Open();
  const std::string record = WriteRecord("what they are");
  Put("records/" + record + ".json", "what they");
  Put("records/notes.txt", "an admin's");
  StateFolder& again = Open();
  absl::StatusOr<std::vector<StateFolder::StoredRecord>> records =
      again.ReadRecords();
  ASSERT_THAT(records.status(), IsOk());
  EXPECT_THAT(*records, IsEmpty());
  EXPECT_THAT(Files("records"), ElementsAre("notes.txt"));
  EXPECT_THAT(Files("aside"), ElementsAre(StartsWith(record)));
}

// A damaged record may need them.
TEST_F(StateFolderTest, KeepsBlobsOfNobodyOnlyBesideSomethingAside) {
  StateFolder& folder = Open();
  const std::string one = WriteBlob("one");
  const std::string two = WriteBlob("two");
  EXPECT_THAT(folder.RemoveBlobsBut({one}), IsOk());
  EXPECT_THAT(Files("blobs"), ElementsAre(one + ".safetensors"));
  EXPECT_FALSE(folder.SetAsideIfDamaged(one));
  Put("blobs/" + one + ".safetensors", "none");
  EXPECT_TRUE(folder.SetAsideIfDamaged(one));
  EXPECT_THAT(Files("blobs"), IsEmpty());
  EXPECT_THAT(Files("aside"), ElementsAre(StartsWith(one)));
  WriteBlob("two");
  EXPECT_THAT(folder.RemoveBlobsBut({}), IsOk());
  EXPECT_THAT(Files("blobs"), ElementsAre(two + ".safetensors"));
}

TEST_F(StateFolderTest, NamesWhatItCannotWriteOrOpen) {
  StateFolder& folder = Open();
  EXPECT_THAT(folder.OpenBlob("absent").status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("absent.safetensors"),
                             HasSubstr("No such file"))));
  fs::remove_all(path_ + "/records");
  absl::Status failed = folder.WriteRecord("text").status();
  EXPECT_THAT(failed, StatusIs(absl::StatusCode::kInternal,
                               HasSubstr("in its state folder")));
  EXPECT_EQ(ReasonOf(failed), Reason::kStorageFailed);
}

// No user can make files there, not even root.
TEST(OpenTest, RefusesAFolderThatCannotBeWritten) {
  EXPECT_THAT(StateFolder::Open("/proc/self").status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("--state-dir /proc/self"),
                             HasSubstr("in which user "))));
}

TEST(OpenTest, RefusesWhatIsNotThere) {
  EXPECT_THAT(StateFolder::Open("/nowhere").status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("No such file or directory")));
}

}  // namespace
}  // namespace backboned
