#include "backbones/selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {

// Used by GoogleTest's matchers.
bool operator==(const Slice& a, const Slice& b) {
  return a.index == b.index && a.begin == b.begin && a.end == b.end &&
         a.whole == b.whole;
}

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;

const std::vector<std::string> kNames = {
    "conv1.weight", "layer1.0.conv1.weight", "classifier.weight",
    "classifier.bias"};
const std::vector<int64_t> kSizes = {10, 20, 5, 1};

std::vector<size_t> Indices(const std::vector<std::string>& globs) {
  const auto slices = Select({.globs = globs}, kNames, kSizes);
  EXPECT_THAT(slices, IsOk());
  std::vector<size_t> indices;
  for (const Slice& slice : *slices) {
    EXPECT_TRUE(slice.whole);
    EXPECT_EQ(slice.begin, 0);
    EXPECT_EQ(slice.end, kSizes[slice.index]);
    indices.push_back(slice.index);
  }
  return indices;
}

absl::StatusOr<std::vector<Slice>> SelectRange(int64_t begin, int64_t end) {
  return Select({.range = {{begin, end}}}, kNames, kSizes);
}

TEST(SelectTest, TakesEverythingIfEmpty) {
  EXPECT_THAT(Indices({}), ElementsAre(0, 1, 2, 3));
}

TEST(SelectTest, TakesNamesByPattern) {
  EXPECT_THAT(Indices({"conv1.weight"}), ElementsAre(0));
  EXPECT_THAT(Indices({"classifier.*"}), ElementsAre(2, 3));
  EXPECT_THAT(Indices({"*"}), ElementsAre(0, 1, 2, 3));
}

TEST(SelectTest, CrossesDotsWithAStar) {
  EXPECT_THAT(Indices({"*conv1*"}), ElementsAre(0, 1));
  EXPECT_THAT(Indices({"layer1*weight"}), ElementsAre(1));
  EXPECT_THAT(Indices({"*.*.*"}), ElementsAre(1));
}

TEST(SelectTest, KeepsLayoutOrder) {
  EXPECT_THAT(Indices({"classifier.bias", "conv1.weight"}), ElementsAre(0, 3));
}

TEST(SelectTest, ExcludesFromEverythingIfTheFirstPatternExcludes) {
  EXPECT_THAT(Indices({"!classifier.*"}), ElementsAre(0, 1));
  EXPECT_THAT(Indices({"!classifier.*", "classifier.bias"}),
              ElementsAre(0, 1, 3));
}

TEST(SelectTest, LetsTheLastMatchDecide) {
  EXPECT_THAT(Indices({"*", "!*weight"}), ElementsAre(3));
  EXPECT_THAT(Indices({"*weight", "!layer1.*", "layer1.0.*"}),
              ElementsAre(0, 1, 2));
}

TEST(SelectTest, MayExcludeEverything) {
  EXPECT_THAT(Indices({"!*"}), IsEmpty());
}

TEST(SelectTest, RejectsPatternWithoutMatch) {
  const auto slices = Select({.globs = {"*", "fc.*"}}, kNames, kSizes);
  EXPECT_THAT(slices, StatusIs(kInvalid,
                               "pattern \"fc.*\" matches none of 4 names, "
                               "the first of which is conv1.weight"));
  EXPECT_THAT(ReasonOf(slices.status()), Optional(Reason::kInvalidOption));
}

TEST(SelectTest, TellsCasesAndWholeNamesApart) {
  for (const char* glob : {"Conv1.weight", "conv1", "weight", "", "!", "?*"}) {
    EXPECT_THAT(Select({.globs = {glob}}, kNames, kSizes),
                StatusIs(kInvalid, HasSubstr("matches none of 4 names")))
        << glob;
  }
}

TEST(SelectTest, RejectsPatternsWithoutMeasure) {
  const std::vector<std::string> names = {"a"};
  const std::vector<int64_t> sizes = {1};
  Selection selection = {.globs = std::vector<std::string>(kMaxGlobs, "a")};
  EXPECT_THAT(Select(selection, names, sizes), IsOk());
  selection.globs.emplace_back("a");
  EXPECT_THAT(Select(selection, names, sizes),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("4097 patterns are given")));
  EXPECT_THAT(Select({.globs = {std::string(257, '*')}}, names, sizes),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("a pattern has 257 bytes")));
  selection.globs.assign(256, std::string(256, '*'));
  EXPECT_THAT(Select(selection, names, sizes), IsOk());
  selection.globs.emplace_back("a");
  EXPECT_THAT(Select(selection, names, sizes),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("the patterns have 65537 bytes")));
}

TEST(SelectTest, RejectsPatternWhereThereAreNoNames) {
  EXPECT_THAT(Select({.globs = {"*"}}, {}, {}),
              StatusIs(kInvalid, "pattern \"*\" matches none of 0 names"));
}

TEST(SelectTest, CutsTensorsByRange) {
  EXPECT_THAT(SelectRange(8, 32),
              IsOkAndHolds(ElementsAre(
                  Slice{.index = 0, .begin = 8, .end = 10, .whole = false},
                  Slice{.index = 1, .begin = 0, .end = 20, .whole = true},
                  Slice{.index = 2, .begin = 0, .end = 2, .whole = false})));
}

TEST(SelectTest, TakesPartInsideOneTensor) {
  EXPECT_THAT(SelectRange(11, 12),
              IsOkAndHolds(ElementsAre(
                  Slice{.index = 1, .begin = 1, .end = 2, .whole = false})));
}

TEST(SelectTest, TakesAllByRange) {
  const auto slices = SelectRange(0, 36);
  ASSERT_THAT(slices, IsOk());
  EXPECT_EQ(slices->size(), 4);
  EXPECT_EQ(CountElements(*slices), 36);
}

TEST(SelectTest, TakesNothingByEmptyRange) {
  EXPECT_THAT(SelectRange(10, 10), IsOkAndHolds(IsEmpty()));
}

TEST(SelectTest, RejectsRangeOutside) {
  EXPECT_THAT(
      SelectRange(0, 37),
      StatusIs(kInvalid, HasSubstr("range [0, 37) must be within [0, 36)")));
  EXPECT_THAT(SelectRange(-1, 2), StatusIs(kInvalid, HasSubstr("[-1, 2)")));
  EXPECT_THAT(SelectRange(3, 2), StatusIs(kInvalid, HasSubstr("[3, 2)")));
}

TEST(SelectTest, RejectsPatternsWithRange) {
  EXPECT_THAT(Select({.globs = {"*"}, .range = {{0, 1}}}, kNames, kSizes),
              StatusIs(kInvalid, HasSubstr("either globs or range")));
}

TEST(SelectWholeParametersTest, NamesTheParameterThatIsCut) {
  Layout layout;
  layout.AddParameter("a", {2, 3});
  layout.AddParameter("b", {4});
  EXPECT_THAT(SelectWholeParameters({.range = {{0, 8}}}, layout),
              StatusIs(kInvalid,
                       "range cuts \"b\": it selects elements [0, 2) of 4; "
                       "select whole parameters"));
  EXPECT_THAT(SelectWholeParameters({.range = {{6, 10}}}, layout),
              IsOkAndHolds(ElementsAre(
                  Slice{.index = 1, .begin = 0, .end = 4, .whole = true})));
}

TEST(SelectBuffersTest, CountsScalarsAsOneElement) {
  Layout layout;
  layout.AddBuffer("mean", {3}, at::kFloat, 0);
  layout.AddBuffer("count", {}, at::kLong, 0);
  EXPECT_THAT(SelectBuffers({.range = {{3, 4}}}, layout),
              IsOkAndHolds(ElementsAre(
                  Slice{.index = 1, .begin = 0, .end = 1, .whole = true})));
}

}  // namespace
}  // namespace backboned
