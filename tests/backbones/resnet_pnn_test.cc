#include "backbones/resnet_pnn.h"

#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "backbones/architectures.h"
#include "backbones/forward.h"
#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

const Arguments kSmall = {
    {"num_classes", 3}, {"num_filters", 4}, {"img_size", 16}};

std::shared_ptr<const Architecture> MakeColumn(size_t earlier) {
  return BuildArchitecture("resnet18-pnn", kSmall, earlier).value();
}

// Returns the State of a second column behind a first column `first`.
StatePtr SecondState(const StatePtr& first) {
  const auto earlier = MakeColumn(0);
  const auto second = MakeColumn(1);
  const std::vector<Column> columns = {
      {.layout = &earlier->layout(), .state = first}};
  return WithColumns(*Seeded(*second, 1), second->layout(), columns);
}

std::vector<std::string> ParameterNames(const Architecture& architecture) {
  std::vector<std::string> names;
  for (const Parameter& parameter : architecture.layout().parameters()) {
    names.push_back(parameter.name);
  }
  return names;
}

TEST(ResNetColumnTest, TheFirstOneHasNoAdaptors) {
  EXPECT_TRUE(MakeColumn(0)->layout().shared().empty());
  EXPECT_EQ(ParameterNames(*MakeColumn(0)).back(), "classifier.bias");
}

TEST(ResNetColumnTest, SharesWhatItReadsOfEarlierOnes) {
  const auto third = MakeColumn(2);
  const auto names = ParameterNames(*third);
  EXPECT_THAT(names, Contains("adaptor1.0.alpha"));
  EXPECT_THAT(names, Contains("lateral_layer4.2.conv2.weight"));
  EXPECT_TRUE(std::ranges::none_of(
      names, [](const std::string& name) { return name.starts_with("old_"); }));
  const auto& shared = third->layout().shared();
  const auto found = std::ranges::find(shared, "old_layer2s.1.0.conv1.weight",
                                       &SharedTensor::name);
  ASSERT_NE(found, shared.end());
  EXPECT_EQ(found->origin.column, 1);
  EXPECT_EQ(found->origin.name, "layer2.0.conv1.weight");
}

TEST(ResNetColumnTest, GivesItsFeaturesBeforeThoseOfTheEarlierOnes) {
  const auto first = Seeded(*MakeColumn(0), 0);
  const at::Tensor x = Rand(1, {2, 3, 16, 16});
  const auto result = Forward(*MakeColumn(1), *SecondState(first), x,
                              {.outputs = {"out", "features"}});
  EXPECT_EQ(result.outputs[0].sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(result.outputs[1].sizes(), (std::vector<int64_t>{2, 64}));
}

TEST(ResNetColumnTest, GivesNoGradientToEarlierColumns) {
  const auto state = SecondState(Seeded(*MakeColumn(0), 0));
  const auto result = Forward(*MakeColumn(1), *state, Rand(1, {2, 3, 16, 16}),
                              {.training = true, .record = true});
  const at::Tensor ones = at::ones({2, 3});
  const BackwardOutput grads =
      Backward(std::vector<GraphGradients>{{.graph = result.graph.get(),
                                            .output_grads = {ones}}},
               /*retain=*/false, /*want_input_grads=*/false);
  EXPECT_EQ(grads.grads.size(), state->params.size());
  EXPECT_TRUE(std::ranges::all_of(
      grads.grads, [](const at::Tensor& grad) { return grad.defined(); }));
}

TEST(ResNetColumnTest, MovesItsCopiesOfEarlierStatisticsInTraining) {
  const auto first = Seeded(*MakeColumn(0), 0);
  const auto state = SecondState(first);
  const auto second = MakeColumn(1);
  const auto& buffers = second->layout().buffers();
  const auto mean = static_cast<size_t>(
      std::ranges::find(buffers, "old_layer1s.0.0.bn1.running_mean",
                        &Buffer::name) -
      buffers.begin());
  ASSERT_LT(mean, buffers.size());
  const auto result =
      Forward(*second, *state, Rand(1, {2, 3, 16, 16}), {.training = true});
  EXPECT_FALSE(result.buffers[mean].equal(state->buffers[mean]));
  EXPECT_TRUE(state->buffers[mean].equal(first->buffers[3]));
}

TEST(ResNetColumnTest, TakesImagesOfItsSizeOnly) {
  EXPECT_THAT(
      MakeColumn(1)->CheckInput(std::vector<int64_t>{2, 3, 32, 32}, false),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("[2, 3, 32, 32], expected [N, 3, H, W] with H = W = "
                         "16")));
  EXPECT_THAT(
      MakeColumn(1)->CheckInput(std::vector<int64_t>{2, 3, 16, 16}, true),
      IsOk());
}

}  // namespace
}  // namespace backboned
