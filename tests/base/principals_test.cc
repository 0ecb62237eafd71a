#include "base/principals.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

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

TEST(NumberByPrincipalTest, CopiesAreOneAndTheSame) {
  NumberByPrincipal numbers = {{"anna", 2}};
  const NumberByPrincipal copy = numbers;
  EXPECT_EQ(copy.Find("anna"), 2);
  EXPECT_EQ(copy.Find("bert"), std::nullopt);
  numbers.Set({{"bert", 3}});
  EXPECT_EQ(copy.Find("anna"), std::nullopt);
  EXPECT_EQ(copy.Find("bert"), 3);
  EXPECT_EQ(NumberByPrincipal().Find("bert"), std::nullopt);
}

}  // namespace
}  // namespace backboned
