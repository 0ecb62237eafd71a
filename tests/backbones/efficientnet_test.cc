#include "backbones/efficientnet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "backbones/architectures.h"
#include "backbones/forward.h"
#include "base/errors.h"
#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

std::shared_ptr<const Architecture> OfType(const std::string& type) {
  return Build("efficientnet",
               {{"num_classes", 3}, {"efficientnet_type", type}});
}

// Returns a forward of b0 in training that draws from `seed`.
ForwardOutput Train(uint64_t seed, const std::vector<int64_t>& shape) {
  const auto net = OfType("b0");
  return Forward(*net, *Seeded(*net), Rand(1, shape),
                 {.outputs = {"out", "features"},
                  .training = true,
                  .rng_state = GeneratorState(SeededGenerator(seed))});
}

std::vector<int64_t> OutShape(const Architecture& net, const State& state,
                              const std::vector<int64_t>& shape) {
  return Forward(net, state, Rand(1, shape), {}).outputs[0].sizes().vec();
}

TEST(EfficientNetTest, NamesItsOutputs) {
  EXPECT_THAT(OfType("b0")->output_names(),
              ElementsAre("out", "features", "layers.0", "layers.1", "layers.2",
                          "layers.3", "layers.4", "layers.5", "layers.6"));
}

TEST(EfficientNetTest, GivesMapsOfEachResolutionAndTheFeatures) {
  const auto net = OfType("b0");
  const auto result = Forward(*net, *Seeded(*net), Rand(1, {2, 3, 64, 96}),
                              {.outputs = net->output_names()});
  std::vector<std::string> shapes;
  for (const at::Tensor& output : result.outputs) {
    shapes.push_back(FormatShape(output.sizes().vec()));
  }
  EXPECT_THAT(shapes,
              ElementsAre("[2, 3]", "[2, 1280]", "[2, 16, 32, 48]",
                          "[2, 24, 16, 24]", "[2, 40, 8, 12]", "[2, 112, 4, 6]",
                          "[2, 320, 2, 3]", "[2, 1280, 2, 3]", "[2, 1280]"));
  EXPECT_TRUE(BitEqual(result.outputs.back(), result.outputs[1]));
}

TEST(EfficientNetTest, ScalesWithTheType) {
  // The attributes of Mammoth's class for 10 classes.
  const std::map<std::string, int64_t> expected = {
      {"b0", 4'020'358},  {"b1", 6'525'994},  {"b2", 7'715'084},
      {"b3", 10'711'602}, {"b4", 17'566'546}, {"b5", 28'361'274},
      {"b6", 40'758'754}, {"b7", 63'812'570}, {"b8", 84'624'312},
      {"l2", 474'859'358}};
  for (const auto& [type, elements] : expected) {
    const auto net = Build("efficientnet",
                           {{"num_classes", 10}, {"efficientnet_type", type}});
    EXPECT_EQ(net->layout().parameter_elements(), elements) << type;
  }
}

TEST(EfficientNetTest, TakesTheSidesThatPyTorchTakes) {
  // b2's maps have odd sides.
  for (const std::string type : {"b0", "b1", "b2", "b4"}) {
    SCOPED_TRACE(type);
    const auto net = OfType(type);
    const auto state = Seeded(*net);
    int64_t smallest = 1;
    while (!net->CheckInput(std::vector<int64_t>{1, 3, smallest, 64}, false)
                .ok()) {
      ++smallest;
    }
    EXPECT_GT(smallest, 1);
    EXPECT_THAT(OutShape(*net, *state, {1, 3, smallest, 64}),
                ElementsAre(1, 3));
    EXPECT_THROW(OutShape(*net, *state, {1, 3, smallest - 1, 64}), c10::Error);
    EXPECT_THROW(OutShape(*net, *state, {1, 3, 64, smallest - 1}), c10::Error);
  }
}

TEST(EfficientNetTest, RejectsOtherShapesAndNamesBoth) {
  const absl::Status status = CheckInput(*OfType("b0"), {4, 1, 28, 28});
  EXPECT_THAT(status, StatusIs(kInvalid,
                               "input has shape [4, 1, 28, 28], expected "
                               "[N, 3, H, W]"));
  EXPECT_THAT(ReasonOf(status), Optional(Reason::kShapeMismatch));
  EXPECT_THAT(CheckInput(*OfType("b0"), {3, 32, 32}), StatusIs(kInvalid));
  EXPECT_THAT(CheckInput(*OfType("b0"), {4, 3, 31, 64}),
              StatusIs(kInvalid,
                       "input has shape [4, 3, 31, 64], expected "
                       "[N, 3, H, W] with H and W at least 32"));
  EXPECT_THAT(CheckInput(*OfType("b0"), {4, 3, 64, 0}),
              StatusIs(kInvalid, HasSubstr("at least 32")));
}

TEST(EfficientNetTest, TakesNoSamplesAsPyTorchDoes) {
  for (const bool training : {false, true}) {
    EXPECT_THAT(CheckInput(*OfType("b0"), {0, 3, 32, 32}, training), IsOk());
  }
  const auto net = OfType("b0");
  EXPECT_THAT(OutShape(*net, *Seeded(*net), {0, 3, 32, 32}), ElementsAre(0, 3));
  EXPECT_THAT(Train(2, {0, 3, 32, 32}).outputs[0].sizes().vec(),
              ElementsAre(0, 3));
}

TEST(EfficientNetTest, RejectsASingleValueAChannelInTrainingAsPyTorchDoes) {
  EXPECT_THAT(CheckInput(*OfType("b0"), {1, 3, 63, 63}, /*training=*/false),
              IsOk());
  EXPECT_THAT(CheckInput(*OfType("b0"), {1, 3, 63, 63}, /*training=*/true),
              StatusIs(kInvalid, HasSubstr("more than one value a channel")));
  EXPECT_THROW(Train(2, {1, 3, 63, 63}), c10::Error);
  EXPECT_THAT(CheckInput(*OfType("b0"), {1, 3, 64, 63}, /*training=*/true),
              IsOk());
  EXPECT_EQ(Train(2, {1, 3, 64, 63}).outputs.size(), 2);
}

TEST(EfficientNetTest, RejectsOtherTypesAndListsTheValidOnes) {
  EXPECT_THAT(BuildArchitecture("efficientnet", {{"num_classes", 3},
                                                 {"efficientnet_type", "b9"}}),
              StatusIs(kInvalid, AllOf(HasSubstr("efficientnet_type is \"b9\""),
                                       HasSubstr("one of \"b0\", \"b1\""),
                                       HasSubstr("\"b8\", \"l2\""))));
  EXPECT_THAT(BuildArchitecture("efficientnet", {{"num_classes", 3}}),
              StatusIs(kInvalid, HasSubstr("efficientnet_type is missing")));
}

TEST(EfficientNetTest, DrawsInTrainingFromTheGeneratorThatItIsGiven) {
  ASSERT_TRUE(OfType("b0")->stochastic());
  const ForwardOutput first = Train(2, {4, 3, 32, 32});
  const ForwardOutput second = Train(2, {4, 3, 32, 32});
  const ForwardOutput other = Train(3, {4, 3, 32, 32});
  EXPECT_TRUE(BitEqual(first.outputs, second.outputs));
  EXPECT_EQ(first.rng_state, second.rng_state);
  EXPECT_NE(first.rng_state, GeneratorState(SeededGenerator(2)));
  // Logits, by dropout, and features, by dropped residuals.
  EXPECT_FALSE(BitEqual(first.outputs[0], other.outputs[0]));
  EXPECT_FALSE(BitEqual(first.outputs[1], other.outputs[1]));
}

TEST(EfficientNetTest, DropsNoFeaturesThatAreAskedForAlone) {
  // Dropout belongs to the head, which does not run then.
  const auto net = OfType("b0");
  const auto result =
      Forward(*net, *Seeded(*net), Rand(1, {4, 3, 32, 32}),
              {.outputs = {"features"},
               .training = true,
               .rng_state = GeneratorState(SeededGenerator(2))});
  const ForwardOutput both = Train(2, {4, 3, 32, 32});
  EXPECT_TRUE(BitEqual(result.outputs[0], both.outputs[1]));
  EXPECT_NE(result.rng_state, both.rng_state);
}

TEST(EfficientNetTest, DrawsNothingInEvaluation) {
  const auto net = OfType("b0");
  const auto state = Seeded(*net);
  const auto result = Forward(*net, *state, Rand(1, {2, 3, 32, 32}),
                              {.outputs = {"out", "features"}});
  EXPECT_EQ(result.rng_state, "");
  EXPECT_TRUE(BitEqual(result.buffers, state->buffers));
}

}  // namespace
}  // namespace backboned
