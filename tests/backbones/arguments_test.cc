#include "backbones/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Optional;

const std::vector<ArgumentSpec>& Specs() {
  static const std::vector<ArgumentSpec> specs = {
      {.name = "num_classes", .minimum = 1, .maximum = 1000},
      {.name = "kind",
       .kind = ArgumentKind::kString,
       .default_value = "b0",
       .choices = {"b0", "b3"}},
      {.name = "rate", .kind = ArgumentKind::kDouble, .default_value = 0.5},
      {.name = "pretrained",
       .kind = ArgumentKind::kBool,
       .default_value = false}};
  return specs;
}

TEST(ResolveArgumentsTest, FillsDefaultsIn) {
  const Arguments expected = {{"num_classes", 10},
                              {"kind", "b0"},
                              {"rate", 0.5},
                              {"pretrained", false}};
  EXPECT_THAT(ResolveArguments(Specs(), {{"num_classes", 10}}),
              IsOkAndHolds(expected));
}

TEST(ResolveArgumentsTest, KeepsWhatIsGiven) {
  const Arguments given = {{"num_classes", 1000},
                           {"kind", "b3"},
                           {"rate", 0.1},
                           {"pretrained", true}};
  EXPECT_THAT(ResolveArguments(Specs(), given), IsOkAndHolds(given));
}

TEST(ResolveArgumentsTest, RejectsUnknownArgumentAndListsTheValidOnes) {
  const auto result = ResolveArguments(Specs(), {{"num_clases", 10}});
  EXPECT_THAT(result, StatusIs(kInvalid,
                               "no argument \"num_clases\"; valid arguments: "
                               "num_classes, kind, rate, pretrained"));
  EXPECT_THAT(ReasonOf(result.status()), Optional(Reason::kInvalidOption));
}

TEST(ResolveArgumentsTest, RejectsMissingArgument) {
  EXPECT_THAT(ResolveArguments(Specs(), {}),
              StatusIs(kInvalid, HasSubstr("argument num_classes is missing, "
                                           "must be an integer, at least 1")));
}

TEST(ResolveArgumentsTest, RejectsIntegerOutOfBounds) {
  const auto message =
      AllOf(HasSubstr("must be an integer, at least 1, at most 1000"),
            HasSubstr("valid arguments: num_classes, kind"));
  EXPECT_THAT(
      ResolveArguments(Specs(), {{"num_classes", 0}}),
      StatusIs(kInvalid, AllOf(HasSubstr("num_classes is 0"), message)));
  EXPECT_THAT(
      ResolveArguments(Specs(), {{"num_classes", 1001}}),
      StatusIs(kInvalid, AllOf(HasSubstr("num_classes is 1001"), message)));
}

TEST(ResolveArgumentsTest, TakesAnIntegerForAFloatingPointNumber) {
  const auto resolved =
      ResolveArguments(Specs(), {{"num_classes", 10}, {"rate", 1}});
  ASSERT_THAT(resolved, IsOk());
  EXPECT_EQ(resolved->at("rate"), ArgumentValue(1.0));
}

TEST(ResolveArgumentsTest, RejectsNumbersOutOfBoundsAndBetweenSteps) {
  const std::vector<ArgumentSpec> specs = {{.name = "depth",
                                            .default_value = 8,
                                            .minimum = 8,
                                            .maximum = 20,
                                            .step = 6},
                                           {.name = "rate",
                                            .kind = ArgumentKind::kDouble,
                                            .default_value = 0.0,
                                            .minimum = 0,
                                            .maximum = 1}};
  EXPECT_THAT(ResolveArguments(specs, {{"depth", 14}, {"rate", 1.0}}), IsOk());
  EXPECT_THAT(ResolveArguments(specs, {{"depth", 15}}),
              StatusIs(kInvalid, HasSubstr("depth is 15, must be an integer, "
                                           "at least 8, at most 20, in steps "
                                           "of 6")));
  for (const double rate : {-0.1, 1.1, std::nan("")}) {
    EXPECT_THAT(ResolveArguments(specs, {{"rate", rate}}),
                StatusIs(kInvalid, HasSubstr("at least 0, at most 1")));
  }
}

TEST(ResolveArgumentsTest, RejectsOtherKinds) {
  EXPECT_THAT(ResolveArguments(Specs(), {{"num_classes", "ten"}}),
              StatusIs(kInvalid, HasSubstr("argument num_classes is \"ten\", "
                                           "must be an integer")));
  EXPECT_THAT(
      ResolveArguments(Specs(), {{"num_classes", 10}, {"pretrained", 1}}),
      StatusIs(kInvalid, HasSubstr("pretrained is 1, must be true or false")));
  EXPECT_THAT(
      ResolveArguments(Specs(), {{"num_classes", 10}, {"rate", true}}),
      StatusIs(kInvalid,
               HasSubstr("rate is true, must be a floating-point number")));
}

TEST(ResolveArgumentsTest, RejectsWhatIsNoChoice) {
  EXPECT_THAT(
      ResolveArguments(Specs(), {{"num_classes", 10}, {"kind", "b9"}}),
      StatusIs(kInvalid,
               HasSubstr("kind is \"b9\", must be one of \"b0\", \"b3\"")));
}

TEST(ResolveArgumentsTest, SaysThatNothingIsValid) {
  EXPECT_THAT(ResolveArguments({}, {{"a", 1}}),
              StatusIs(kInvalid, "no argument \"a\"; valid arguments: none"));
}

}  // namespace
}  // namespace backboned
