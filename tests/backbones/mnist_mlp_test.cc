#include "backbones/mnist_mlp.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "backbones/architectures.h"
#include "backbones/forward.h"
#include "backbones/state.h"
#include "base/errors.h"
#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::Not;
using ::testing::Optional;

std::shared_ptr<const Architecture> Mlp() {
  return Build("mnistmlp", {{"num_classes", 10}});
}

TEST(MnistMlpTest, NamesItsOutputs) {
  EXPECT_THAT(Mlp()->output_names(),
              ElementsAre("out", "features", "layers.0", "layers.1"));
}

TEST(MnistMlpTest, TakesItsHiddenSize) {
  const auto mlp =
      Build("mnistmlp", {{"num_classes", 3}, {"mlp_hidden_size", 5}});
  EXPECT_EQ(mlp->layout().parameter_elements(), 784 * 5 + 5 + 25 + 5 + 15 + 3);
  const auto result = Forward(*mlp, *Seeded(*mlp), Rand(1, {2, 1, 28, 28}),
                              {.outputs = {"out", "features"}});
  EXPECT_EQ(result.outputs[0].sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(result.outputs[1].sizes(), (std::vector<int64_t>{2, 5}));
}

TEST(MnistMlpTest, TakesAnyShapeWithTheRightNumberOfElements) {
  EXPECT_THAT(CheckInput(*Mlp(), {4, 1, 28, 28}), IsOk());
  EXPECT_THAT(CheckInput(*Mlp(), {4, 784}), IsOk());
  EXPECT_THAT(CheckInput(*Mlp(), {1, 784}, /*training=*/true), IsOk());
}

TEST(MnistMlpTest, RejectsOtherShapesAndNamesBoth) {
  const absl::Status status = CheckInput(*Mlp(), {4, 3, 32, 32});
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "input has shape [4, 3, 32, 32], expected [N, 1, 28, "
                       "28] or any other with 784 elements a sample"));
  EXPECT_THAT(ReasonOf(status), Optional(Reason::kShapeMismatch));
  EXPECT_THAT(CheckInput(*Mlp(), {784}), Not(IsOk()));
  EXPECT_THAT(CheckInput(*Mlp(), {}), Not(IsOk()));
  EXPECT_THAT(CheckInput(*Mlp(), {-1, 784}), Not(IsOk()));
  EXPECT_THAT(CheckInput(*Mlp(), {1, -28, -28}), Not(IsOk()));
  EXPECT_THAT(CheckInput(*Mlp(), {1, int64_t{1} << 62, int64_t{1} << 62}),
              Not(IsOk()));
}

TEST(MnistMlpTest, GivesNoRowsForNoSamples) {
  EXPECT_THAT(CheckInput(*Mlp(), {0, 1, 28, 28}), IsOk());
  const auto mlp = Mlp();
  const auto result = Forward(
      *mlp, *Seeded(*mlp), Rand(1, {0, 1, 28, 28}),
      {.outputs = {"out", "features"}, .training = true, .record = true});
  EXPECT_EQ(result.outputs[0].sizes(), (std::vector<int64_t>{0, 10}));
  EXPECT_EQ(result.outputs[1].sizes(), (std::vector<int64_t>{0, 100}));
}

TEST(MnistMlpTest, GivesTheFeaturesAsItsLastStage) {
  const auto mlp = Mlp();
  const auto result = Forward(*mlp, *Seeded(*mlp), Rand(1, {2, 1, 28, 28}),
                              {.outputs = {"layers.1", "features"}});
  EXPECT_TRUE(BitEqual(result.outputs[0], result.outputs[1]));
}

TEST(MnistMlpColumnTest, ComputesWhatAFirstColumnDoes) {
  const Arguments arguments = {{"num_classes", 3}, {"input_size", 8}};
  const auto first = BuildArchitecture("mnistmlp-pnn", arguments).value();
  const auto second = BuildArchitecture("mnistmlp-pnn", arguments, 1).value();
  EXPECT_EQ(second->layout().shared().size(), 4);
  const std::vector<Column> columns = {
      {.layout = &first->layout(), .state = Seeded(*first, 0)}};
  const auto state =
      WithColumns(*Seeded(*second, 1), second->layout(), columns);
  State plain = *Seeded(*first, 0);
  std::ranges::copy_n(state->params.begin(), plain.params.size(),
                      plain.params.begin());
  const at::Tensor x = Rand(1, {2, 8});
  EXPECT_TRUE(BitEqual(Forward(*second, *state, x, {}).outputs,
                       Forward(*first, plain, x, {}).outputs));
}

}  // namespace
}  // namespace backboned
