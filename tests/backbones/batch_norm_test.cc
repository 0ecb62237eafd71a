#include "backbones/batch_norm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "backbones/forward.h"
#include "base/errors.h"
#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;

// Returns a layout with the BatchNorm layers a.bn1, a.bn2, b.bn1.
Layout ThreeLayers() {
  Layout layout;
  for (const char* name : {"a.bn1", "a.bn2", "b.bn1"}) {
    layout.AddBatchNorm(name);
  }
  return layout;
}

std::vector<BatchNormMode> Resolve(
    const std::vector<BatchNormOverride>& overrides) {
  absl::StatusOr<std::vector<BatchNormMode>> modes =
      ResolveBatchNorm(overrides, ThreeLayers());
  EXPECT_THAT(modes, IsOk());
  return *std::move(modes);
}

// Returns the modes of all layers of `architecture`.
std::vector<BatchNormMode> Everywhere(const Architecture& architecture,
                                      const BatchNormMode& mode) {
  return ResolveBatchNorm(std::vector<BatchNormOverride>{{.mode = mode}},
                          architecture.layout())
      .value();
}

TEST(ResolveBatchNormTest, GivesNothingWithoutOverrides) {
  EXPECT_THAT(Resolve({}), IsEmpty());
}

TEST(ResolveBatchNormTest, TheLastThatNamesALayerDecidesEachField) {
  const auto modes =
      Resolve({{.mode = {.training = false, .eps = 0.5}},
               {.globs = {"a.*"}, .mode = {.training = true}},
               {.globs = {"*.bn1"}, .mode = {.eps = 0, .momentum = 1}}});
  ASSERT_THAT(modes, testing::SizeIs(3));
  EXPECT_THAT(modes[0].training, Optional(true));
  EXPECT_THAT(modes[0].eps, Optional(0.0));
  EXPECT_THAT(modes[1].training, Optional(true));
  EXPECT_THAT(modes[1].eps, Optional(0.5));
  EXPECT_EQ(modes[1].momentum, std::nullopt);
  EXPECT_THAT(modes[2].training, Optional(false));
  EXPECT_THAT(modes[2].momentum, Optional(1.0));
}

TEST(ResolveBatchNormTest, MomentumAndCumulativeAreOneField) {
  auto modes = Resolve({{.mode = {.momentum = 0.5}},
                        {.globs = {"a.*"}, .mode = {.cumulative = true}},
                        {.globs = {"a.bn2"}, .mode = {.momentum = 0.25}}});
  EXPECT_TRUE(modes[0].cumulative);
  EXPECT_FALSE(modes[1].cumulative);
  EXPECT_THAT(modes[1].momentum, Optional(0.25));
  EXPECT_FALSE(modes[2].cumulative);
}

TEST(ResolveBatchNormTest, NamesAPatternThatMatchesNoLayer) {
  const auto modes = ResolveBatchNorm(
      std::vector<BatchNormOverride>{{.globs = {"c.*"}}}, ThreeLayers());
  EXPECT_THAT(modes, StatusIs(absl::StatusCode::kInvalidArgument,
                              HasSubstr("\"c.*\" matches none of 3 names")));
  EXPECT_EQ(ReasonOf(modes.status()), Reason::kInvalidOption);
}

TEST(ResolveBatchNormTest, NamesAValueThatIsOutOfItsRange) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  const auto error_of = [](const BatchNormMode& mode) {
    return ResolveBatchNorm(std::vector<BatchNormOverride>{{.mode = mode}},
                            ThreeLayers())
        .status();
  };
  EXPECT_THAT(error_of({.eps = -1}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("eps of BatchNorm is -1")));
  for (const double momentum : {-0.5, 1.5, kNaN}) {
    EXPECT_THAT(error_of({.momentum = momentum}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("must be in [0, 1]")));
  }
  EXPECT_THAT(error_of({.eps = kNaN}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(BatchNormModeTest, DecidesWhatAForwardDoes) {
  const auto resnet = SmallResNet();
  ForwardOptions options;
  EXPECT_FALSE(MovesBuffers(*resnet, options));
  options.batch_norm = Everywhere(*resnet, {.training = true});
  EXPECT_TRUE(UsesBatchStatistics(options));
  EXPECT_TRUE(MovesBuffers(*resnet, options));
  options.batch_norm =
      Everywhere(*resnet, {.training = true, .track_running_stats = false});
  EXPECT_TRUE(UsesBatchStatistics(options));
  EXPECT_FALSE(MovesBuffers(*resnet, options));
  options.training = true;
  options.batch_norm = Everywhere(*resnet, {.training = false});
  EXPECT_FALSE(UsesBatchStatistics(options));
  EXPECT_FALSE(MovesBuffers(*resnet, options));
}

TEST(BatchNormModeTest, UntrackedLayersKeepTheirBuffersThemselves) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  ForwardOptions options = {.training = true};
  const auto tracked = Forward(*resnet, *state, Rand(1, {4, 3, 8, 8}), options);
  options.batch_norm = Everywhere(*resnet, {.track_running_stats = false});
  const auto untracked =
      Forward(*resnet, *state, Rand(1, {4, 3, 8, 8}), options);
  EXPECT_TRUE(BitEqual(untracked.outputs, tracked.outputs));
  for (size_t i = 0; i < state->buffers.size(); ++i) {
    EXPECT_TRUE(untracked.buffers[i].is_same(state->buffers[i]));
  }
}

TEST(BatchNormModeTest, CumulativeMomentumAveragesTheBatches) {
  const auto resnet = SmallResNet();
  const auto state = Seeded(*resnet);
  ForwardOptions options = {
      .training = true,
      .batch_norm = Everywhere(*resnet, {.cumulative = true})};
  const at::Tensor x = Rand(1, {4, 3, 8, 8});
  const auto first = Forward(*resnet, *state, x, options);
  options.batch_norm = Everywhere(*resnet, {.momentum = 1});
  EXPECT_TRUE(
      BitEqual(Forward(*resnet, *state, x, options).buffers, first.buffers));
}

TEST(BatchNormLayersTest, BearTheNamesOfTheirTensors) {
  const auto resnet = SmallResNet();
  const auto& names = resnet->layout().batch_norms();
  EXPECT_EQ(names.size(), 20U);
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(resnet->layout().buffers()[3 * i].name,
              names[i] + ".running_mean");
  }
}

}  // namespace
}  // namespace backboned
