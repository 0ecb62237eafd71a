#include "backbones/architectures.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Optional;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(ArchitecturesTest, AreSortedAndDocumented) {
  const auto& entries = Architectures();
  EXPECT_TRUE(std::ranges::is_sorted(entries, {}, &ArchitectureEntry::name));
  for (const ArchitectureEntry& entry : entries) {
    EXPECT_THAT(entry.source,
                AnyOf(HasSubstr("Mammoth e75a491"), HasSubstr("arXiv:")))
        << entry.name;
    EXPECT_NE(entry.description, "") << entry.name;
    for (const ArgumentSpec& argument : entry.arguments) {
      EXPECT_NE(argument.description, "") << argument.name;
    }
  }
}

// Covers the parameters that a fork draws anew.
TEST(ArchitecturesTest, ChangeNothingButTheirHeadWithTheClasses) {
  for (const ArchitectureEntry& entry : Architectures()) {
    Arguments arguments;
    for (const ArgumentSpec& spec : entry.arguments) {
      if (spec.default_value.has_value()) continue;
      if (spec.choices.empty()) {
        arguments[spec.name] = spec.minimum.value();
      } else {
        arguments[spec.name] = spec.choices.front();
      }
    }
    arguments["num_classes"] = 3;
    const auto three = BuildArchitecture(entry.name, arguments);
    arguments["num_classes"] = 5;
    const auto five = BuildArchitecture(entry.name, arguments);
    ASSERT_THAT(three, IsOk());
    ASSERT_THAT(five, IsOk());
    const auto& parameters = (*three)->layout().parameters();
    ASSERT_EQ(parameters.size(), (*five)->layout().parameters().size());
    int heads = 0;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Parameter& other = (*five)->layout().parameters()[i];
      EXPECT_EQ(parameters[i].head, parameters[i].shape != other.shape)
          << entry.name << ": " << other.name;
      heads += parameters[i].head ? 1 : 0;
    }
    EXPECT_EQ(heads, 2) << entry.name;
  }
}

TEST(BuildArchitectureTest, FillsDefaultsIn) {
  const auto mlp = BuildArchitecture("mnistmlp", {{"num_classes", 7}});
  ASSERT_THAT(mlp, IsOk());
  EXPECT_EQ((*mlp)->name(), "mnistmlp");
  EXPECT_THAT(
      (*mlp)->arguments(),
      UnorderedElementsAre(Pair("num_classes", ArgumentValue(7)),
                           Pair("mlp_hidden_size", ArgumentValue(100))));
}

TEST(BuildArchitectureTest, IgnoresCaseAndUnderscores) {
  EXPECT_THAT(BuildArchitecture("ResNet18", {{"num_classes", 10}}), IsOk());
  EXPECT_THAT(
      BuildArchitecture("resnet_18", {{"num_classes", 10}}),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("mean resnet18?")));
}

TEST(BuildArchitectureTest, RejectsUnknownNameAndListsTheValidOnes) {
  const auto result = BuildArchitecture("vgg11", {{"num_classes", 10}});
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kNotFound,
                               HasSubstr("no architecture \"vgg11\"; valid "
                                         "architectures: ")));
  EXPECT_THAT(result.status().message(), HasSubstr("mnistmlp, "));
  EXPECT_THAT(ReasonOf(result.status()),
              Optional(Reason::kArchitectureNotFound));
}

TEST(BuildArchitectureTest, RejectsBadArguments) {
  EXPECT_THAT(
      BuildArchitecture("resnet18", {{"num_classes", 10}, {"num_filter", 20}}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "no argument \"num_filter\"; valid arguments: "
               "num_classes, num_filters"));
  EXPECT_THAT(BuildArchitecture("mnistmlp", {{"num_classes", -1}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("num_classes is -1")));
  EXPECT_THAT(BuildArchitecture("mnistmlp", {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("num_classes is missing")));
}

TEST(BuildArchitectureTest, RefusesColumnsThatThereCannotBe) {
  const auto invalid = [](const std::string& message) {
    return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message));
  };
  EXPECT_THAT(BuildArchitecture("resnet18", {{"num_classes", 3}}, 1),
              invalid("resnet18 is not a progressive network and takes no "
                      "columns; progressive networks: "
                      "mnistmlp-pnn, resnet18-pnn"));
  EXPECT_THAT(BuildArchitecture("resnet18-pnn",
                                {{"num_classes", 3}, {"img_size", 16}}, 64),
              invalid("there are 64 earlier columns, at most 63"));
  const auto unsized =
      BuildArchitecture("resnet18-pnn", {{"num_classes", 3}}, 1);
  EXPECT_THAT(unsized, invalid("argument img_size is 0; a later column needs"));
  EXPECT_THAT(ReasonOf(unsized.status()), Optional(Reason::kInvalidOption));
}

}  // namespace
}  // namespace backboned
