#include "backbones/resnet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

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

std::vector<int64_t> FeatureShape(const std::vector<int64_t>& shape) {
  const auto resnet = SmallResNet();
  return Forward(*resnet, *Seeded(*resnet), Rand(1, shape),
                 {.outputs = {"features"}})
      .outputs[0]
      .sizes()
      .vec();
}

TEST(ResNetTest, NamesItsOutputs) {
  EXPECT_THAT(SmallResNet()->output_names(),
              ElementsAre("out", "features", "layers.0", "layers.1", "layers.2",
                          "layers.3", "layers.4"));
}

TEST(ResNetTest, HalvesTheSidesFromStageToStage) {
  const auto resnet = SmallResNet();
  const auto result =
      Forward(*resnet, *Seeded(*resnet), Rand(1, {2, 3, 64, 64}),
              {.outputs = {"layers.0", "layers.1", "layers.2", "layers.3",
                           "layers.4"}});
  std::vector<std::string> shapes;
  for (const at::Tensor& output : result.outputs) {
    shapes.push_back(FormatShape(output.sizes().vec()));
  }
  EXPECT_THAT(shapes,
              ElementsAre("[2, 4, 64, 64]", "[2, 4, 64, 64]", "[2, 8, 32, 32]",
                          "[2, 16, 16, 16]", "[2, 32, 8, 8]"));
}

TEST(ResNetTest, TakesAnySideThatPoolsToOne) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{1, 3, 32, 32},
                                            {2, 3, 64, 64},
                                            {2, 3, 31, 33},
                                            {1, 3, 1, 1},
                                            {1, 3, 32, 40}}) {
    EXPECT_THAT(CheckInput(*SmallResNet(), shape), IsOk())
        << FormatShape(shape);
    EXPECT_THAT(FeatureShape(shape), ElementsAre(shape[0], 32));
  }
}

TEST(ResNetTest, RejectsOtherShapesAndNamesBoth) {
  const absl::Status status = CheckInput(*SmallResNet(), {4, 1, 28, 28});
  EXPECT_THAT(status,
              StatusIs(kInvalid,
                       "input has shape [4, 1, 28, 28], expected [N, 3, "
                       "H, W]"));
  EXPECT_THAT(ReasonOf(status), Optional(Reason::kShapeMismatch));
  EXPECT_THAT(CheckInput(*SmallResNet(), {3, 32, 32}), StatusIs(kInvalid));
  EXPECT_THAT(CheckInput(*SmallResNet(), {4, 3, 0, 32}),
              StatusIs(kInvalid, HasSubstr("no size of 0")));
}

TEST(ResNetTest, RejectsSidesThatDoNotPoolToOne) {
  EXPECT_THAT(CheckInput(*SmallResNet(), {4, 3, 32, 64}),
              StatusIs(kInvalid, AllOf(HasSubstr("[4, 3, 32, 64]"),
                                       HasSubstr("4x8, pool to 1x2"))));
  EXPECT_THAT(CheckInput(*SmallResNet(), {4, 3, 64, 32}),
              StatusIs(kInvalid, HasSubstr("8x4, pool to 1x0")));
}

TEST(ResNetTest, RejectsNoSamplesAsPyTorchDoes) {
  EXPECT_THAT(CheckInput(*SmallResNet(), {0, 3, 32, 32}),
              StatusIs(kInvalid, HasSubstr("[0, 3, 32, 32]")));
  EXPECT_THROW(FeatureShape({0, 3, 32, 32}), c10::Error);
}

TEST(ResNetTest, RejectsASingleValueAChannelInTrainingAsPyTorchDoes) {
  EXPECT_THAT(CheckInput(*SmallResNet(), {1, 3, 8, 8}, /*training=*/false),
              IsOk());
  EXPECT_THAT(CheckInput(*SmallResNet(), {1, 3, 8, 8}, /*training=*/true),
              StatusIs(kInvalid, HasSubstr("more than one value a channel")));
  EXPECT_THAT(CheckInput(*SmallResNet(), {2, 3, 8, 8}, /*training=*/true),
              IsOk());
  const auto resnet = SmallResNet();
  EXPECT_THROW(Forward(*resnet, *Seeded(*resnet), Rand(1, {1, 3, 8, 8}),
                       {.training = true}),
               c10::Error);
}

TEST(ResNetTest, RejectsUnknownOutputs) {
  const auto check = [](const std::vector<std::string>& outputs) {
    return SmallResNet()->CheckOutputs(outputs);
  };
  EXPECT_THAT(check({"out", "layers.4"}), IsOk());
  EXPECT_THAT(check({"layers.5"}),
              StatusIs(kInvalid,
                       "resnet18 has no output \"layers.5\"; valid "
                       "outputs: out, features, layers.0, layers.1, "
                       "layers.2, layers.3, layers.4"));
  EXPECT_THAT(check({}), StatusIs(kInvalid, HasSubstr("no output is asked")));
  EXPECT_THAT(check({"out", "features", "out"}),
              StatusIs(kInvalid, "output out is asked for twice"));
}

}  // namespace
}  // namespace backboned
