#include "backbones/optimizer.h"

#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/errors.h"
#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Returns a layout with the parameters `a` [2], `b` [1] and `c` [1].
Layout ThreeParameters() {
  Layout layout;
  layout.AddParameter("a", {2});
  layout.AddParameter("b", {1});
  layout.AddParameter("c", {1});
  return layout;
}

// Returns a = [1, 2], b = [3], c = [4], with gradients [1, -1], [2] and none.
State StateOfThree() {
  State state;
  state.params = {at::tensor({1.F, 2.F}), at::tensor({3.F}), at::tensor({4.F})};
  state.grads = {at::tensor({1.F, -1.F}), at::tensor({2.F}), at::Tensor()};
  return state;
}

std::shared_ptr<const Selection> Only(Selection selection) {
  return std::make_shared<const Selection>(std::move(selection));
}

absl::StatusOr<OptimizerPtr> Make(OptimizerKind kind,
                                  std::vector<ParameterGroup> groups) {
  return MakeOptimizer(kind, std::move(groups), ThreeParameters());
}

State StateWith(OptimizerKind kind, std::vector<ParameterGroup> groups) {
  State state = StateOfThree();
  state.optimizer = Make(kind, std::move(groups)).value();
  return state;
}

State SgdState(const ParameterGroup& group) {
  return StateWith(OptimizerKind::kSgd, {group});
}

State AdamState(const ParameterGroup& group) {
  return StateWith(OptimizerKind::kAdam, {group});
}

// Steps `times` times with the same gradients, which must succeed.
StatePtr Stepped(const State& state, const StepOptions& options = {},
                 int times = 1) {
  StatePtr next = std::make_shared<const State>(state);
  for (int i = 0; i < times; ++i) {
    absl::StatusOr<StepOutput> output = Step(*next, options);
    EXPECT_THAT(output, IsOk());
    next = output->state;
  }
  return next;
}

TEST(SgdTest, GoesDownTheGradient) {
  const StatePtr next = Stepped(SgdState({.lr = 0.5}));
  EXPECT_THAT(ValuesOf(next->params[0]), ElementsAre(0.5F, 2.5F));
  EXPECT_THAT(ValuesOf(next->params[1]), ElementsAre(2));
  EXPECT_EQ(next->params_version, 2U);
  EXPECT_THAT(next->optimizer->slots[0], IsEmpty());
}

TEST(SgdTest, GoesUpTheGradientToMaximize) {
  const StatePtr next = Stepped(SgdState({.lr = 0.5, .maximize = true}));
  EXPECT_THAT(ValuesOf(next->params[0]), ElementsAre(1.5F, 1.5F));
}

TEST(SgdTest, DecaysTheWeights) {
  const StatePtr next = Stepped(SgdState({.lr = 0.5, .weight_decay = 2}));
  EXPECT_THAT(ValuesOf(next->params[0]), ElementsAre(-0.5F, 0.5F));
}

TEST(SgdTest, DampsTheMomentumFromTheSecondStepOn) {
  const StatePtr next =
      Stepped(SgdState({.lr = 1, .momentum = 0.5, .dampening = 0.75}), {}, 2);
  // The buffer is 2, then 0.5 * 2 + 0.25 * 2 = 1.5.
  EXPECT_THAT(ValuesOf(next->optimizer->slots[1].at(0)), ElementsAre(1.5F));
  EXPECT_THAT(ValuesOf(next->params[1]), ElementsAre(-0.5F));
}

TEST(SgdTest, LooksAheadWithNesterov) {
  const StatePtr next =
      Stepped(SgdState({.lr = 1, .momentum = 0.5, .nesterov = true}));
  EXPECT_THAT(ValuesOf(next->params[1]), ElementsAre(0));  // 3 - (2 + 0.5 * 2)
}

TEST(SgdTest, KeepsItsBuffersThroughStepsWithoutMomentum) {
  const StatePtr first = Stepped(SgdState({.lr = 1, .momentum = 0.5}));
  const StatePtr plain = Stepped(*first, {.settings = {{.momentum = 0}}});
  EXPECT_THAT(ValuesOf(plain->optimizer->slots[1].at(0)), ElementsAre(2));
  EXPECT_THAT(ValuesOf(plain->params[1]), ElementsAre(-1));  // 3 - 2 - 2
  const StatePtr next = Stepped(*plain, {.settings = {{.momentum = 0.5}}});
  EXPECT_THAT(ValuesOf(next->params[1]), ElementsAre(-4));  // - (0.5 * 2 + 2)
}

TEST(AdamTest, StepsByTheLearningRateAtFirst) {
  const StatePtr next = Stepped(AdamState({.lr = 0.5, .eps = 0}));
  EXPECT_THAT(ValuesOf(next->params[0]),
              ElementsAre(FloatEq(0.5F), FloatEq(2.5F)));
  const std::vector<at::Tensor>& slots = next->optimizer->slots[1];
  ASSERT_EQ(slots.size(), 3);
  EXPECT_EQ(slots[0].item<float>(), 1);
  EXPECT_EQ(slots[0].dim(), 0);
  EXPECT_THAT(ValuesOf(slots[1]), ElementsAre(FloatEq(0.2F)));
  EXPECT_THAT(ValuesOf(slots[2]), ElementsAre(FloatEq(0.004F)));
}

TEST(AdamTest, CountsTheStepsOfEachParameter) {
  State state = *Stepped(AdamState({}), {}, 2);
  state.grads[2] = at::tensor({1.F});
  const StatePtr next = Stepped(state);
  EXPECT_EQ(next->optimizer->slots[0].at(0).item<float>(), 3);
  EXPECT_EQ(next->optimizer->slots[2].at(0).item<float>(), 1);
}

TEST(AdamTest, AddsTheWeightDecayToTheGradient) {
  const StatePtr next = Stepped(AdamState({.weight_decay = 2}));
  EXPECT_THAT(ValuesOf(next->optimizer->slots[1][1]),
              ElementsAre(FloatEq(0.1F * (2 + 2 * 3))));
}

TEST(AdamTest, RemembersTheLargestSecondMomentWithAmsgrad) {
  State state = AdamState({.beta2 = 0, .amsgrad = true});
  state = *Stepped(state);
  state.grads[1] = at::tensor({1.F});
  const StatePtr next = Stepped(state);
  EXPECT_THAT(ValuesOf(next->optimizer->slots[1].at(2)), ElementsAre(1));
  EXPECT_THAT(ValuesOf(next->optimizer->slots[1].at(3)), ElementsAre(4));
}

TEST(AdamWTest, DecouplesTheWeightDecay) {
  const StatePtr next = Stepped(StateWith(
      OptimizerKind::kAdamW, {{.lr = 0.5, .weight_decay = 0.5, .eps = 0}}));
  EXPECT_THAT(ValuesOf(next->params[1]),
              ElementsAre(FloatEq(3 * 0.75F - 0.5F)));
  EXPECT_THAT(ValuesOf(next->optimizer->slots[1][1]),
              ElementsAre(FloatEq(0.2F)));
}

TEST(StepTest, LeavesAParameterWithoutAGradientAlone) {
  const State state = AdamState({});
  const auto output = Step(state, {});
  ASSERT_THAT(output, IsOk());
  EXPECT_EQ(output->stepped_count, 2);
  EXPECT_TRUE(output->state->params[2].is_same(state.params[2]));
  EXPECT_THAT(output->state->optimizer->slots[2], IsEmpty());
}

TEST(StepTest, LeavesAFrozenParameterAlone) {
  const State state = SgdState({});
  const auto output = Step(state, {}, {false, true, true});
  ASSERT_THAT(output, IsOk());
  EXPECT_EQ(output->stepped_count, 1);
  EXPECT_TRUE(output->state->params[0].is_same(state.params[0]));
  EXPECT_FALSE(output->state->params[1].is_same(state.params[1]));
}

TEST(StepTest, LeavesAParameterOfNoGroupAlone) {
  const State state =
      StateWith(OptimizerKind::kSgd, {{.selection = Only({.globs = {"b"}})}});
  const StatePtr next = Stepped(state);
  EXPECT_TRUE(next->params[0].is_same(state.params[0]));
  EXPECT_THAT(ValuesOf(next->params[1]), ElementsAre(2.998F));
}

TEST(StepTest, CopiesNoPatterns) {
  const State state =
      StateWith(OptimizerKind::kSgd, {{.selection = Only({.globs = {"b"}})}});
  const auto output = Step(state, {.lr = {0.5}});
  ASSERT_THAT(output, IsOk());
  EXPECT_EQ(output->state->optimizer->groups[0].selection,
            state.optimizer->groups[0].selection);
}

TEST(StepTest, StepsEachGroupInItsOwnWay) {
  const StatePtr next = Stepped(StateWith(
      OptimizerKind::kSgd,
      {{.selection = Only({.globs = {"b"}}), .lr = 1, .maximize = true},
       {.selection = Only({.globs = {"!b"}}), .lr = 2}}));
  EXPECT_THAT(ValuesOf(next->params[0]), ElementsAre(-1, 4));
  EXPECT_THAT(ValuesOf(next->params[1]), ElementsAre(5));
}

// Tensors that others hold must not change.
TEST(StepTest, WritesToNothingThatItIsGiven) {
  const ParameterGroup momentum = {.weight_decay = 0.1, .momentum = 0.9};
  const ParameterGroup amsgrad = {.weight_decay = 0.1, .amsgrad = true};
  for (const State& first : {SgdState(momentum), AdamState(amsgrad),
                             StateWith(OptimizerKind::kAdamW, {amsgrad})}) {
    const StatePtr state = Stepped(first);
    std::vector<at::Tensor> held = state->params;
    for (const size_t i : {0, 1}) {
      held.push_back(state->grads[i]);
      held.insert(held.end(), state->optimizer->slots[i].begin(),
                  state->optimizer->slots[i].end());
    }
    const std::vector<at::Tensor> copies = Copies(held);
    Stepped(*state, {.clip_norm = ClipNorm{.max_norm = 0.1}});
    Stepped(*state, {.clip_value = 0.1}, 2);
    EXPECT_TRUE(BitEqual(held, copies));
  }
}

TEST(StepTest, KeepsNewLearningRates) {
  const StatePtr next = Stepped(SgdState({.lr = 1}), {.lr = {0.5}});
  EXPECT_THAT(ValuesOf(next->params[1]), ElementsAre(2));
  EXPECT_EQ(next->optimizer->groups[0].lr, 0.5);
  EXPECT_THAT(ValuesOf(Stepped(*next)->params[1]), ElementsAre(1));
}

TEST(StepTest, KeepsNewSettingsAndWhatItRemembers) {
  const StatePtr first = Stepped(SgdState({.lr = 1, .momentum = 0.5}));
  const StatePtr next =
      Stepped(*first, {.settings = {{.weight_decay = 1, .momentum = 0.25}}});
  // The parameter is 1, the gradient 2 + 1, the buffer 0.25 * 2 + 3.
  EXPECT_THAT(ValuesOf(next->params[1]), ElementsAre(-2.5F));
  EXPECT_THAT(ValuesOf(next->optimizer->slots[1].at(0)), ElementsAre(3.5F));
  const ParameterGroup& group = next->optimizer->groups[0];
  EXPECT_EQ(group.lr, 1);
  EXPECT_EQ(group.weight_decay, 1);
  EXPECT_EQ(group.momentum, 0.25);
}

TEST(StepTest, TakesSettingsOfEveryKind) {
  const StatePtr sgd = Stepped(
      SgdState({.momentum = 0.5}),
      {.settings = {{.maximize = true, .dampening = 0, .nesterov = true}}});
  EXPECT_TRUE(sgd->optimizer->groups[0].maximize);
  EXPECT_TRUE(sgd->optimizer->groups[0].nesterov);
  const StatePtr adam = Stepped(
      AdamState({}), {.settings = {{.beta1 = 0.5, .beta2 = 0.75, .eps = 1}}});
  EXPECT_EQ(adam->optimizer->groups[0].beta1, 0.5);
  EXPECT_EQ(adam->optimizer->groups[0].beta2, 0.75);
  EXPECT_EQ(adam->optimizer->groups[0].eps, 1);
}

TEST(StepTest, TakesTheGradientsAwayIfAskedTo) {
  EXPECT_TRUE(Stepped(SgdState({}))->grads[0].defined());
  const StatePtr next = Stepped(SgdState({}), {.zero_after = true});
  ASSERT_EQ(next->grads.size(), 3);
  EXPECT_FALSE(next->grads[0].defined());
}

TEST(ClipTest, BoundsTheNormOfAllGradientsTogether) {
  State state = SgdState({.lr = 1});
  state.grads = {at::tensor({1.F, 2.F}), at::tensor({2.F}), at::Tensor()};
  const auto output = Step(state, {.clip_norm = ClipNorm{.max_norm = 1.5}});
  ASSERT_THAT(output, IsOk());
  EXPECT_THAT(output->grad_norm, Optional(3.0));
  EXPECT_NEAR(output->state->params[1].item<float>(), 2, 1e-6);
  EXPECT_THAT(ValuesOf(output->state->grads[1]), ElementsAre(2));
}

TEST(ClipTest, TakesAnyNorm) {
  const auto norm_of = [](double norm_type) {
    const ClipNorm clip = {.max_norm = kInfinity, .norm_type = norm_type};
    return Step(SgdState({}), {.clip_norm = clip}).value().grad_norm;
  };
  EXPECT_THAT(norm_of(1), Optional(4.0));
  EXPECT_THAT(norm_of(kInfinity), Optional(2.0));
}

TEST(ClipTest, LeavesASmallNormAlone) {
  const State state = SgdState({.lr = 1});
  const StatePtr next = Stepped(state, {.clip_norm = ClipNorm{.max_norm = 50}});
  EXPECT_TRUE(BitEqual(next->params, Stepped(state)->params));
}

TEST(ClipTest, CountsOnlyTheGradientsOfSteppedParameters) {
  const StepOptions options = {.clip_norm = ClipNorm{.max_norm = 1}};
  const auto frozen = Step(SgdState({}), options, {false, true, true});
  ASSERT_THAT(frozen, IsOk());
  EXPECT_THAT(frozen->grad_norm, Optional(2.0));
}

TEST(ClipTest, BoundsEachElement) {
  const auto output = Step(SgdState({.lr = 1}), {.clip_value = 0.5});
  ASSERT_THAT(output, IsOk());
  EXPECT_THAT(ValuesOf(output->state->params[0]), ElementsAre(0.5F, 2.5F));
  EXPECT_THAT(ValuesOf(output->state->params[1]), ElementsAre(2.5F));
  EXPECT_EQ(output->grad_norm, std::nullopt);
}

TEST(StepTest, NeedsAnOptimizer) {
  const absl::Status status = Step(StateOfThree(), {}).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("no optimizer")));
  EXPECT_THAT(ReasonOf(status), Optional(Reason::kNoOptimizer));
}

TEST(StepTest, NeedsAGradient) {
  State state = SgdState({});
  state.grads.assign(3, at::Tensor());
  const absl::Status status = Step(state, {}).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("has a gradient")));
  EXPECT_THAT(ReasonOf(status), Optional(Reason::kNoGradients));
}

TEST(StepTest, RefusesOptionsThatDoNotFit) {
  const State state = SgdState({});
  const auto expect = [&](const StepOptions& options, const char* message) {
    EXPECT_THAT(
        Step(state, options),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  };
  expect({.lr = {1, 2}}, "lr has 2 values, expected 1, one for each group");
  expect({.lr = {-1}},
         "group 0: lr is -1, must be finite in float32 and at least 0");
  expect({.clip_norm = ClipNorm{.max_norm = 0}}, "max_norm is 0");
  expect({.clip_norm = ClipNorm{.max_norm = 1, .norm_type = -1}},
         "norm_type is -1, must be above 0");
  expect({.clip_value = kNan}, "clip_value is nan");
  expect({.lr = {1e308}}, "lr is 1e+308, must be finite in float32");
  expect({.clip_value = 1e308},
         "clip_value is 1e+308, which is finite, but not in float32");
  expect({.settings = {{}, {}}},
         "settings has 2 values, expected 1, one for each group");
  expect({.settings = {{.momentum = -1}}}, "group 0: momentum is -1");
  expect({.settings = {{.nesterov = true}}}, "group 0: nesterov needs");
  expect({.settings = {{.beta1 = 0.5}}},
         "group 0: the optimizer's kind takes no beta1");
  EXPECT_THAT(
      Step(AdamState({}), {.settings = {{.momentum = 0}}}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("group 0: the optimizer's kind takes no momentum")));
}

TEST(MakeOptimizerTest, RefusesNumbersOutOfTheirRange) {
  const auto expect = [](OptimizerKind kind, const ParameterGroup& group,
                         const char* message) {
    EXPECT_THAT(
        Make(kind, {{.selection = Only({.globs = {"a"}})}, group}),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  };
  expect(OptimizerKind::kSgd, {.lr = kNan}, "group 1: lr is nan");
  expect(OptimizerKind::kSgd, {.lr = kInfinity}, "group 1: lr is inf");
  expect(
      OptimizerKind::kSgd, {.weight_decay = -2},
      "group 1: weight_decay is -2, must be finite in float32 and at least 0");
  expect(OptimizerKind::kSgd, {.momentum = -0.5}, "momentum is -0.5");
  expect(OptimizerKind::kSgd, {.dampening = kInfinity}, "dampening is inf");
  expect(
      OptimizerKind::kSgd, {.momentum = 0.5, .dampening = 1, .nesterov = true},
      "nesterov needs a momentum above 0 and dampening 0, they are 0.5 and 1");
  expect(OptimizerKind::kAdam, {.beta1 = 1},
         "group 1: beta1 is 1, must be in [0, 1)");
  expect(OptimizerKind::kAdamW, {.beta2 = kNan}, "beta2 is nan");
  expect(OptimizerKind::kAdamW, {.eps = -1}, "eps is -1");
  expect(OptimizerKind::kAdam, {.lr = 1e38, .beta1 = 0.875},
         "lr / (1 - beta1) is 8e+38, must be finite in float32");
}

TEST(MakeOptimizerTest, RefusesGroupsThatShareAParameter) {
  EXPECT_THAT(
      Make(OptimizerKind::kSgd, {{.selection = Only({.globs = {"*", "!a"}})},
                                 {.selection = Only({.globs = {"a", "c"}})}}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("parameter \"c\" is in group 0 and in group 1")));
}

TEST(MakeOptimizerTest, RefusesSelectionsOfNoWholeParameter) {
  const auto expect = [](const Selection& selection, const char* message) {
    EXPECT_THAT(
        Make(OptimizerKind::kSgd, {{.selection = Only(selection)}}),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  };
  expect({.globs = {"z"}}, "group 0: pattern \"z\" matches none");
  expect({.range = {{0, 1}}},
         "group 0: range cuts \"a\": it selects elements [0, 1) of");
  expect({.globs = {"a", "!a"}},
         "group 0: the group's selection selects no parameter");
}

TEST(MakeOptimizerTest, RefusesMorePatternsThanAllGroupsMayHave) {
  const auto expect = [](size_t globs, size_t bytes, const char* message) {
    const Selection selection = {
        .globs = std::vector(globs, std::string(bytes, '*'))};
    EXPECT_THAT(
        Make(OptimizerKind::kSgd,
             {{.selection = Only(selection)}, {.selection = Only(selection)}}),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  };
  expect(2049, 1, "the groups have 4098 patterns, at most 4096 are allowed");
  expect(129, 256, "the groups' patterns have 66048 bytes, at most 65536");
  expect(128, 256, "is in group 0 and in group 1");
}

TEST(MakeOptimizerTest, NeedsAGroup) {
  EXPECT_THAT(
      Make(OptimizerKind::kSgd, {}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has no group")));
}

TEST(CheckOptimizableTest, RefusesHalfPrecision) {
  State state = StateOfThree();
  EXPECT_THAT(CheckOptimizable(state), IsOk());
  state.params[1] = state.params[1].to(at::kBFloat16);
  const absl::Status status = CheckOptimizable(state);
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("an optimizer needs float32 or float64")));
  EXPECT_THAT(ReasonOf(status), Optional(Reason::kReadOnly));
}

TEST(SlotNamesTest, ArePyTorchs) {
  EXPECT_THAT(SlotNames(OptimizerKind::kSgd, {}),
              ElementsAre("momentum_buffer"));
  EXPECT_THAT(SlotNames(OptimizerKind::kAdam, {}),
              ElementsAre("step", "exp_avg", "exp_avg_sq"));
  EXPECT_THAT(SlotNames(OptimizerKind::kAdamW, {.amsgrad = true}),
              ElementsAre("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"));
}

TEST(StateBytesTest, CountsTheOptimizersTensors) {
  const State state = AdamState({});
  const int64_t before = StateBytes(state);
  // For each of a and b: the step, and two moments.
  EXPECT_EQ(StateBytes(*Stepped(state)), before + 2 * 4 + 2 * 3 * 4);
}

TEST(WithOptimizerTest, ReplacesOnlyTheOptimizer) {
  const State state = SgdState({});
  const StatePtr without = WithOptimizer(state, nullptr);
  EXPECT_EQ(without->optimizer, nullptr);
  EXPECT_EQ(without->params_version, state.params_version);
  EXPECT_TRUE(without->params[0].is_same(state.params[0]));
}

}  // namespace
}  // namespace backboned
