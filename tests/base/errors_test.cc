#include "base/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::Eq;
using ::testing::Optional;
using ::testing::SizeIs;

TEST(ErrorTest, CarriesCodeMessageAndReason) {
  const absl::Status status =
      Error(absl::StatusCode::kAborted, Reason::kStaleVersion, "version is 2");
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted, Eq("version is 2")));
  EXPECT_THAT(ReasonOf(status), Optional(Reason::kStaleVersion));
  EXPECT_FALSE(LimitOf(status).has_value());
}

TEST(ErrorTest, FindsNoReasonInOtherErrors) {
  EXPECT_FALSE(ReasonOf(absl::InternalError("a")).has_value());
  EXPECT_FALSE(ReasonOf(absl::OkStatus()).has_value());
}

TEST(ErrorTest, CutsLongMessagesBetweenCharacters) {
  std::string message = "a";
  while (message.size() < 2 * kMaxMessageBytes) {
    message += "\u00e9";  // Two bytes.
  }
  const absl::Status status = Error(absl::StatusCode::kInvalidArgument,
                                    Reason::kInvalidOption, message);
  const std::string cut(status.message());
  EXPECT_THAT(cut, AllOf(SizeIs(::testing::Le(kMaxMessageBytes)),
                         EndsWith("\u00e9...")));
}

TEST(LimitReachedTest, CarriesTheLimit) {
  const Limit limit = {.name = "max-tapes",
                       .value = 16,
                       .requested = 17,
                       .retry_delay = absl::Milliseconds(1500)};
  const absl::Status status = LimitReached(limit, "too many tapes");
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               Eq("too many tapes")));
  EXPECT_THAT(ReasonOf(status), Optional(Reason::kLimitReached));
  const std::optional<Limit> found = LimitOf(status);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->name, "max-tapes");
  EXPECT_EQ(found->value, 16);
  EXPECT_EQ(found->requested, 17);
  EXPECT_EQ(found->retry_delay, absl::Milliseconds(1500));
}

TEST(QuoteTest, CutsLongNames) {
  EXPECT_EQ(Quote("seq-mnist"), "\"seq-mnist\"");
  EXPECT_THAT(Quote(std::string(1000, 'a')), SizeIs(132));
}

TEST(QuoteTest, EscapesAllButPrintableAscii) {
  EXPECT_EQ(Quote(std::string("a\n\0\u00e9", 5)), "\"a\\n\\000\\303\\251\"");
}

TEST(FormatShapeTest, SpellsSizes) {
  const std::vector<int64_t> shape = {4, 3, 32, 32};
  EXPECT_EQ(FormatShape(shape), "[4, 3, 32, 32]");
  EXPECT_EQ(FormatShape({}), "[]");
}

}  // namespace
}  // namespace backboned
