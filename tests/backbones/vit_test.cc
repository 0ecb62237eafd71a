#include "backbones/vit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "backbones/architectures.h"
#include "backbones/forward.h"
#include "base/errors.h"
#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

// Returns arguments of a small network; those in `more` are added or replace.
Arguments Small(const Arguments& more = {}) {
  Arguments arguments = {{"num_classes", 5}, {"img_size", 32},
                         {"patch_size", 8},  {"embed_dim", 12},
                         {"num_heads", 3},   {"depth", 2}};
  for (const auto& [name, value] : more) arguments[name] = value;
  return arguments;
}

// Returns a training forward of a network that drops all residuals of its last
// block, and half of those of the middle one.
ForwardOutput Train(uint64_t seed) {
  const auto vit = Build("vit", Small({{"depth", 3}, {"drop_path_rate", 1.0}}));
  return Forward(*vit, *Seeded(*vit), Rand(1, {8, 3, 32, 32}),
                 {.outputs = {"out", "layers.0", "layers.1", "layers.2"},
                  .training = true,
                  .rng_state = GeneratorState(SeededGenerator(seed))});
}

TEST(VitTest, NamesItsOutputs) {
  EXPECT_THAT(
      Build("vit", Small())->output_names(),
      ElementsAre("out", "features", "layers.0", "layers.1", "layers.2"));
}

TEST(VitTest, GivesTheTokensAfterEachBlock) {
  const auto vit = Build("vit", Small());
  const auto result = Forward(*vit, *Seeded(*vit), Rand(1, {2, 3, 32, 32}),
                              {.outputs = vit->output_names()});
  std::vector<std::string> shapes;
  for (const at::Tensor& output : result.outputs) {
    shapes.push_back(FormatShape(output.sizes().vec()));
  }
  EXPECT_THAT(shapes, ElementsAre("[2, 5]", "[2, 12]", "[2, 17, 12]",
                                  "[2, 17, 12]", "[2, 17, 12]"));
  EXPECT_TRUE(BitEqual(result.outputs[1], result.outputs.back().select(1, 0)));
}

TEST(VitTest, HasThePapersSizes) {
  const auto elements = [](const char* name) {
    return Build(name, {{"num_classes", 1000}})->layout().parameter_elements();
  };
  EXPECT_EQ(elements("vit"), 86'567'656);
  EXPECT_EQ(elements("vit-small"), 22'050'664);
  EXPECT_EQ(elements("vit-tiny"), 5'717'416);
}

TEST(VitTest, IsPretrainedIfMammothLoadsWeights) {
  const auto pretrained = [](const char* name) {
    return FindArchitecture(name).value()->pretrained;
  };
  EXPECT_TRUE(pretrained("vit"));
  EXPECT_FALSE(pretrained("vit-small"));
  EXPECT_FALSE(pretrained("vit-tiny"));
}

TEST(VitTest, LeavesOutPixelsThatFillNoPatch) {
  const auto vit = Build("vit", Small({{"img_size", 39}}));
  EXPECT_THAT(vit->input_shape(), ElementsAre(3, 39, 39));
  const auto state = Seeded(*vit);
  const at::Tensor x = Rand(1, {2, 3, 39, 39});
  at::Tensor cut = x.clone();
  cut.slice(2, 32).zero_();
  cut.slice(3, 32).zero_();
  EXPECT_TRUE(BitEqual(Forward(*vit, *state, x, {}).outputs,
                       Forward(*vit, *state, cut, {}).outputs));
}

TEST(VitTest, HasBiasesAndHiddenUnitsAsAskedFor) {
  const auto vit =
      Build("vit", Small({{"qkv_bias", false}, {"mlp_ratio", 1.3}}));
  const auto find = [&](const std::string& name) {
    return std::ranges::find(vit->layout().parameters(), name,
                             &Parameter::name);
  };
  const auto end = vit->layout().parameters().end();
  EXPECT_EQ(find("blocks.0.attn.qkv.bias"), end);
  ASSERT_NE(find("blocks.0.mlp.fc1.weight"), end);
  EXPECT_THAT(find("blocks.0.mlp.fc1.weight")->shape, ElementsAre(15, 12));
  EXPECT_THAT(Forward(*vit, *Seeded(*vit), Rand(1, {2, 3, 32, 32}), {})
                  .outputs[0]
                  .sizes()
                  .vec(),
              ElementsAre(2, 5));
}

TEST(VitTest, RejectsOtherImagesAndNamesBothSizes) {
  const absl::Status status =
      CheckInput(*Build("vit", Small()), {4, 3, 28, 32});
  EXPECT_THAT(status, StatusIs(kInvalid,
                               "input has shape [4, 3, 28, 32], expected "
                               "[N, 3, H, W] with H = W = 32"));
  EXPECT_THAT(ReasonOf(status), Optional(Reason::kShapeMismatch));
  EXPECT_THAT(CheckInput(*Build("vit", Small()), {4, 3, 32, 28}),
              StatusIs(kInvalid));
  EXPECT_THAT(CheckInput(*Build("vit", Small()), {4, 1, 32, 32}),
              StatusIs(kInvalid));
  EXPECT_THAT(CheckInput(*Build("vit", Small()), {3, 32, 32}),
              StatusIs(kInvalid));
  EXPECT_THAT(CheckInput(*Build("vit", Small()), {1, 3, 32, 32}), IsOk());
}

TEST(VitTest, TakesNoSamplesAsPyTorchDoes) {
  EXPECT_THAT(CheckInput(*Build("vit", Small()), {0, 3, 32, 32}), IsOk());
  const auto vit = Build("vit", Small({{"drop_path_rate", 0.5}}));
  for (const bool training : {false, true}) {
    const auto result = Forward(*vit, *Seeded(*vit), Rand(1, {0, 3, 32, 32}),
                                {.training = training});
    EXPECT_THAT(result.outputs[0].sizes().vec(), ElementsAre(0, 5));
  }
}

TEST(VitTest, RejectsArgumentsThatDoNotFitTogether) {
  const auto build = [](const Arguments& more) {
    return BuildArchitecture("vit", Small(more)).status();
  };
  EXPECT_THAT(build({{"num_heads", 5}}),
              StatusIs(kInvalid,
                       "argument embed_dim is 12, must be a multiple of "
                       "num_heads, 5"));
  EXPECT_THAT(ReasonOf(build({{"num_heads", 5}})),
              Optional(Reason::kInvalidOption));
  EXPECT_THAT(build({{"patch_size", 33}}),
              StatusIs(kInvalid,
                       "argument patch_size is 33, must be at most img_size, "
                       "32"));
  EXPECT_THAT(build({{"mlp_ratio", 0.08}}),
              StatusIs(kInvalid, HasSubstr("mlp_ratio is 0.08, must be")));
  EXPECT_THAT(build({{"drop_path_rate", 1.5}}),
              StatusIs(kInvalid, HasSubstr("drop_path_rate is 1.5")));
  EXPECT_THAT(build({{"depth", 0}}),
              StatusIs(kInvalid, HasSubstr("at least 1, at most 128")));
  EXPECT_THAT(build({{"img_size", 32}, {"patch_size", 32}}), IsOk());
}

TEST(VitTest, TrainsAsItEvaluatesWithoutDropPath) {
  const auto vit = Build("vit", Small());
  EXPECT_FALSE(vit->stochastic());
  const auto state = Seeded(*vit);
  const at::Tensor x = Rand(1, {2, 3, 32, 32});
  const auto training = Forward(*vit, *state, x, {.training = true});
  EXPECT_TRUE(BitEqual(training.outputs, Forward(*vit, *state, x, {}).outputs));
  EXPECT_EQ(training.rng_state, "");
}

TEST(VitTest, DropsResidualsOfWholeSamplesInTraining) {
  const ForwardOutput result = Train(2);
  const at::Tensor& before = result.outputs[1];
  const at::Tensor& middle = result.outputs[2];
  EXPECT_TRUE(BitEqual(result.outputs[3], middle));
  int64_t dropped = 0;
  for (int64_t i = 0; i < before.size(0); ++i) {
    dropped += BitEqual(before[i], middle[i]) ? 1 : 0;
  }
  // One sample in four loses both residuals of the middle block.
  EXPECT_GT(dropped, 0);
  EXPECT_LT(dropped, before.size(0));
}

TEST(VitTest, DrawsInTrainingFromTheGeneratorThatItIsGiven) {
  const ForwardOutput first = Train(2);
  const ForwardOutput second = Train(2);
  EXPECT_TRUE(BitEqual(first.outputs, second.outputs));
  EXPECT_EQ(first.rng_state, second.rng_state);
  EXPECT_NE(first.rng_state, GeneratorState(SeededGenerator(2)));
  EXPECT_FALSE(BitEqual(first.outputs[2], Train(3).outputs[2]));
}

TEST(VitTest, DrawsNothingInEvaluation) {
  const auto vit = Build("vit", Small({{"drop_path_rate", 0.5}}));
  EXPECT_TRUE(vit->stochastic());
  const auto result = Forward(*vit, *Seeded(*vit), Rand(1, {2, 3, 32, 32}), {});
  EXPECT_EQ(result.rng_state, "");
}

}  // namespace
}  // namespace backboned
