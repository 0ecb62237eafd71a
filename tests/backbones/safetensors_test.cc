#include "base/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "tests/backbones/safetensors_files.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Returns a field of a header: `"name": {...}`.
std::string Entry(const std::string& name, const std::string& dtype,
                  const std::string& shape, const std::string& offsets) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype,
                      "\",\"shape\":", shape, ",\"data_offsets\":", offsets,
                      "}");
}

const char kA[] = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";

void ExpectUnsound(const std::string& header, int64_t data_bytes,
                   const std::string& message) {
  const absl::Status status =
      ParseSafetensorsHeader(header, data_bytes).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr(message)))
      << header;
  EXPECT_EQ(ReasonOf(status), Reason::kWeightsUnreadable) << header;
}

absl::Status ReadStatus(const std::string& bytes) {
  return SafetensorsFile::Read(OpenBytes(bytes), nullptr).status();
}

TEST(ParseSafetensorsHeaderTest, SortsByTheDatasOrder) {
  const auto entries = ParseSafetensorsHeader(
      absl::StrCat("{", Entry("z", "F32", "[2,1]", "[2,10]"), ",",
                   R"("__metadata__":{"format":"pt"},)",
                   Entry("b", "BF16", "[]", "[0,2]"), ",",
                   Entry("none", "I64", "[0,7]", "[10,10]"), "}   "),
      10);
  ASSERT_THAT(entries, IsOk());
  ASSERT_THAT(*entries, SizeIs(3));
  EXPECT_EQ((*entries)[0].name, "b");
  EXPECT_EQ((*entries)[0].dtype, SafetensorsDtype::kBf16);
  EXPECT_THAT((*entries)[0].shape, SizeIs(0));
  EXPECT_EQ((*entries)[1].name, "z");
  EXPECT_THAT((*entries)[1].shape, ElementsAre(2, 1));
  EXPECT_EQ((*entries)[1].begin, 2);
  EXPECT_EQ((*entries)[1].end, 10);
  EXPECT_EQ((*entries)[2].name, "none");
}

TEST(ParseSafetensorsHeaderTest, KnowsTheDtypes) {
  const std::vector<std::pair<std::string, int>> types = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},   {"I16", 2}, {"I32", 4},
      {"I64", 8},  {"F16", 2}, {"BF16", 2}, {"F32", 4}, {"F64", 8}};
  for (const auto& [type, bytes] : types) {
    EXPECT_THAT(ParseSafetensorsHeader(
                    absl::StrCat("{",
                                 Entry("a", type, "[3]",
                                       absl::StrCat("[0,", 3 * bytes, "]")),
                                 "}"),
                    int64_t{3} * bytes),
                IsOk())
        << type;
  }
  ExpectUnsound("{" + Entry("a", "F31", "[2]", "[0,8]") + "}", 8,
                "unknown dtype \"F31\"");
}

TEST(ParseSafetensorsHeaderTest, RefusesOverlapsAndGaps) {
  const std::string a = absl::StrCat("{", kA, ",");
  ExpectUnsound(a + Entry("b", "F32", "[1]", "[4,8]") + "}", 8,
                "\"b\" starts at byte 4 of the data, expected byte 8");
  ExpectUnsound(a + Entry("b", "F32", "[2]", "[0,8]") + "}", 8,
                "starts at byte 0 of the data, expected byte 8");
  ExpectUnsound(a + Entry("b", "F32", "[1]", "[9,13]") + "}", 13,
                "starts at byte 9 of the data, expected byte 8");
  ExpectUnsound("{" + Entry("a", "F32", "[1]", "[4,8]") + "}", 8,
                "starts at byte 4 of the data, expected byte 0");
}

TEST(ParseSafetensorsHeaderTest, RefusesDataThatIsNotTheFiles) {
  const std::string a = absl::StrCat("{", kA, "}");
  EXPECT_THAT(ParseSafetensorsHeader(a, 8), IsOk());
  ExpectUnsound(a, 9, "the tensors have 8 bytes, the file has 9");
  ExpectUnsound(a, 7, "ends at byte 8 of the data, which starts at 0");
  ExpectUnsound("{" + Entry("a", "F32", "[2]", "[8,0]") + "}", 8,
                "starts at byte 8");
  ExpectUnsound("{}", 1, "the tensors have 0 bytes");
  EXPECT_THAT(ParseSafetensorsHeader("{}", 0), IsOk());
}

TEST(ParseSafetensorsHeaderTest, RefusesSizesThatAreNotTheShapes) {
  ExpectUnsound("{" + Entry("a", "F32", "[3]", "[0,8]") + "}", 8,
                "of shape [3] has 8 bytes, expected 12");
  ExpectUnsound(
      "{" + Entry("a", "U8", "[4294967296,4294967296]", "[0,0]") + "}", 0,
      "expected more than 2^63");
  ExpectUnsound("{" + Entry("a", "U8", "[9223372036854775808]", "[0,0]") + "}",
                0, "over 2^63 - 1");
  ExpectUnsound("{" + Entry("a", "U8", "[99999999999999999999]", "[0,0]") + "}",
                0, "not an integer");
  ExpectUnsound("{" + Entry("a", "U8", "[-1]", "[0,1]") + "}", 1, "negative");
  ExpectUnsound("{" + Entry("a", "U8", "[1.0]", "[0,1]") + "}", 1,
                "not an integer");
  ExpectUnsound("{" + Entry("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") + "}", 1,
                "more than 8 dimensions");
}

TEST(ParseSafetensorsHeaderTest, RefusesNamesThatComeTwice) {
  ExpectUnsound(absl::StrCat("{", kA, ",", kA, "}"), 8,
                "tensor \"a\" occurs twice");
  ExpectUnsound(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],)"
                R"("data_offsets":[0,1]}})",
                1, "key \"dtype\" occurs twice");
  ExpectUnsound(R"({"__metadata__":{},"__metadata__":{}})", 0, "occurs twice");
  ExpectUnsound(R"({"__metadata__":{"a":"b","a":"c"}})", 0, "occurs twice");
  ExpectUnsound("{" + Entry(std::string(513, 'a'), "U8", "[1]", "[0,1]") + "}",
                1, "name has 513 bytes");
}

TEST(ParseSafetensorsHeaderTest, RefusesEveryOtherForm) {
  for (const char* header :
       {"",
        " {}",
        "[]",
        "null",
        "{",
        "{}{}",
        "{} x",
        "{\"a\"}",
        "{\"a\":1}",
        "{\"a\":\"b\"}",
        "{\"a\":[]}",
        "{\"a\":{}}",
        "{\"a\":null}",
        "{\"a\":true}",
        R"({"a":{"dtype":"U8","shape":[1]}})",
        R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,1]}})",
        R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})",
        R"({"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}})",
        R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})",
        R"({"a":{"dtype":"U8","shape":{},"data_offsets":[0,1]}})",
        R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1]}})",
        R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}})",
        R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[]}})",
        R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})",
        R"({"__metadata__":{"a":1}})",
        R"({"__metadata__":{"a":{}}})",
        R"({"__metadata__":1})",
        "{\"\xff\":{}}"}) {
    ExpectUnsound(header, 1, "");
  }
  ExpectUnsound("{\"a\":" + std::string(1'000'000, '['), 1, "an array");
}

TEST(SafetensorsFileTest, ReadsAllBytesInOrder) {
  const at::Tensor a = at::arange(6, at::kFloat).view({2, 3});
  const std::string bytes =
      SafetensorsOf({{"a", a}, {"n", at::zeros({}, at::kLong)}});
  std::string seen;
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Read(
      OpenBytes(bytes), [&seen](std::span<const std::byte> piece) {
        seen.append(reinterpret_cast<const char*>(piece.data()), piece.size());
      });
  ASSERT_THAT(file, IsOk());
  ASSERT_THAT(file->entries(), SizeIs(2));
  std::vector<float> values(6);
  EXPECT_THAT(file->ReadNext(std::as_writable_bytes(std::span(values))),
              IsOk());
  EXPECT_THAT(values, ElementsAre(0, 1, 2, 3, 4, 5));
  std::vector<std::byte> rest(8);
  EXPECT_THAT(file->ReadNext(rest), IsOk());
  EXPECT_EQ(seen, bytes);
  EXPECT_THAT(
      file->ReadNext(rest),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("cut short")));
}

TEST(SafetensorsFileTest, RefusesAFileThatIsCutAnywhere) {
  const std::string bytes = SafetensorsOf(
      {{"a", at::arange(3, at::kFloat)}, {"b", at::zeros({2}, at::kHalf)}});
  ASSERT_THAT(ReadStatus(bytes), IsOk());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THAT(ReadStatus(bytes.substr(0, length)),
                StatusIs(absl::StatusCode::kFailedPrecondition))
        << length;
  }
  EXPECT_THAT(ReadStatus(bytes + "x"),
              StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST(SafetensorsFileTest, BearsEveryByteChanged) {
  const std::string bytes = SafetensorsOf(
      {{"a", at::arange(3, at::kFloat)}, {"b", at::zeros({2}, at::kHalf)}});
  int refused = 0;
  for (size_t i = 0; i + 16 < bytes.size(); ++i) {
    for (int change = 1; change < 256; change += 3) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ change);
      const absl::Status status = ReadStatus(changed);
      if (status.ok()) continue;  // A name, or white space.
      EXPECT_EQ(ReasonOf(status), Reason::kWeightsUnreadable) << status;
      ++refused;
    }
  }
  EXPECT_GT(refused, 8000);
}

TEST(SafetensorsFileTest, RefusesHeadersThatAreTooLong) {
  std::string bytes = SafetensorsBytes("{}", "");
  bytes[0] = 3;
  EXPECT_THAT(ReadStatus(bytes),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has 3 bytes, the file has 2")));
  bytes.assign(8, '\xff');
  EXPECT_THAT(ReadStatus(bytes),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("18446744073709551615 bytes, the limit is "
                                 "100000000")));
}

int64_t PeakKibibytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

TEST(SafetensorsFileTest, AllocatesNothingForAHeaderOverTheLimit) {
  // A sparse file that has the bytes which its length announces.
  const int fd = OpenBytes("");
  const uint64_t length = uint64_t{4} << 30;
  ASSERT_EQ(write(fd, &length, sizeof(length)), 8);
  ASSERT_EQ(ftruncate(fd, (int64_t{4} << 30) + 8), 0);
  lseek(fd, 0, SEEK_SET);
  const int64_t before = PeakKibibytes();
  EXPECT_THAT(SafetensorsFile::Read(fd, nullptr),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("the limit is 100000000")));
  EXPECT_LT(PeakKibibytes() - before, 16 << 10);
}

TEST(SafetensorsFileTest, RefusesWhatIsNoFile) {
  for (const char* path : {"/", "/dev/zero"}) {
    EXPECT_THAT(
        SafetensorsFile::Read(open(path, O_RDONLY | O_CLOEXEC), nullptr),
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 HasSubstr("not a regular file")));
  }
}

}  // namespace
}  // namespace backboned
