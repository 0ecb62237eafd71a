#include "backbones/wide_resnet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
using ::testing::IsEmpty;

std::shared_ptr<const Architecture> Small(double dropout) {
  return Build("wide-resnet", {{"num_classes", 3},
                               {"depth", 10},
                               {"widen_factor", 1},
                               {"dropout", dropout}});
}

ForwardOutput Train(const Architecture& net, const State& state,
                    const std::string& rng_state = {}) {
  return Forward(net, state, Rand(1, {2, 3, 16, 16}),
                 {.training = true, .rng_state = rng_state});
}

TEST(WideResNetTest, GivesItsStages) {
  const auto net = Small(0);
  const auto result = Forward(*net, *Seeded(*net), Rand(1, {2, 3, 16, 24}),
                              {.outputs = net->output_names()});
  std::vector<std::string> shapes;
  for (const at::Tensor& output : result.outputs) {
    shapes.push_back(FormatShape(output.sizes().vec()));
  }
  EXPECT_THAT(shapes, ElementsAre("[2, 3]", "[2, 64]", "[2, 16, 16, 24]",
                                  "[2, 16, 16, 24]", "[2, 32, 8, 12]",
                                  "[2, 64, 4, 6]"));
}

TEST(WideResNetTest, DrawsOnlyWithDropout) {
  EXPECT_FALSE(Small(0)->stochastic());
  const auto net = Small(0.5);
  EXPECT_TRUE(net->stochastic());
  const auto plain = Small(0);
  EXPECT_THAT(Train(*plain, *Seeded(*plain)).rng_state, IsEmpty());
}

TEST(WideResNetTest, DrawsFromTheStateAndMovesOn) {
  const auto net = Small(0.5);
  const StatePtr state = Seeded(*net);
  const ForwardOutput first = Train(*net, *state);
  const ForwardOutput again = Train(*net, *state);
  EXPECT_TRUE(first.outputs[0].equal(again.outputs[0]));
  EXPECT_EQ(first.rng_state, again.rng_state);
  EXPECT_NE(first.rng_state, state->rng_state);
  const StatePtr next = WithRngState(*state, first.rng_state);
  EXPECT_FALSE(first.outputs[0].equal(Train(*net, *next).outputs[0]));
}

TEST(WideResNetTest, PrefersAGivenGenerator) {
  const auto net = Small(0.5);
  const std::string given = GeneratorState(SeededGenerator(9));
  const ForwardOutput first = Train(*net, *Seeded(*net), given);
  const StatePtr state = WithRngState(*Seeded(*net), given);
  EXPECT_TRUE(first.outputs[0].equal(Train(*net, *state).outputs[0]));
}

TEST(WideResNetTest, DropsEverythingWithProbabilityOne) {
  const auto net = Small(1);
  EXPECT_TRUE(
      Train(*net, *Seeded(*net)).outputs[0].isfinite().all().item<bool>());
}

TEST(WideResNetTest, TakesNoOtherDepths) {
  EXPECT_THAT(
      BuildArchitecture("wide-resnet", {{"num_classes", 3}, {"depth", 27}}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("depth is 27, must be an integer, at least 10, at "
                         "most 100, in steps of 6")));
}

}  // namespace
}  // namespace backboned
