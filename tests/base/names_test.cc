#include "base/names.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

TEST(CheckNameTest, AcceptsTheContractsNames) {
  for (const std::string& name :
       {std::string("a"), std::string("0"), std::string("seq-mnist_2.b"),
        std::string(64, 'x')}) {
    EXPECT_THAT(CheckName(name), IsOk()) << name;
  }
}

TEST(CheckNameTest, RefusesEverythingElse) {
  for (const std::string& name :
       {std::string(), std::string("A"), std::string("-a"), std::string(".a"),
        std::string("a/b"), std::string("a b"), std::string("../a"),
        std::string("\xc3\xa4"), std::string("a\0b", 3),
        std::string(65, 'x')}) {
    const absl::Status status = CheckName(name);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("[a-z0-9][a-z0-9_.-]{0,63}")))
        << name;
    EXPECT_EQ(ReasonOf(status), Reason::kInvalidOption);
  }
}

}  // namespace
}  // namespace backboned
