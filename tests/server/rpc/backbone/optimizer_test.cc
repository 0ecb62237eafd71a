// Tests the optimizer of an instance, and its steps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

v1::Optimizer Sgd(double lr, double momentum = 0) {
  v1::Optimizer optimizer;
  optimizer.set_kind(v1::OPTIMIZER_KIND_SGD);
  optimizer.add_groups()->set_lr(lr);
  optimizer.mutable_groups(0)->set_momentum(momentum);
  return optimizer;
}

class OptimizerTest : public ::testing::Test {
 protected:
  void Configure(const v1::Optimizer& optimizer) {
    v1::ConfigureOptimizerRequest request;
    *request.mutable_optimizer() = optimizer;
    EXPECT_THAT(client_.ConfigureOptimizer(request), IsOk());
  }

  // Sets every gradient to `value`.
  void SetGrads(float value) {
    v1::SetGradsHeader header;
    *header.mutable_grads()->mutable_spec() = FloatSpec({kElements});
    EXPECT_THAT(
        client_.SetGrads(header, Bytes(std::vector<float>(kElements, value))),
        IsOk());
  }

  std::vector<float> Params() {
    return Floats(client_.GetParams().value().bytes);
  }

  v1::Instance Described() { return client_.GetInstance().value().instance(); }

  // Keeps a tape of the input [1, 1, 1, 1] times `value`.
  std::string Tape(float value) {
    return client_
        .Forward(TapedForwardOf(1), Bytes(std::vector<float>(4, value)))
        .value()
        .header.tape_id();
  }

  std::string Ones() { return Bytes({1, 1, 1, 1}); }

  TestServer server_;
  PlainClient client_{server_};
};

TEST_F(OptimizerTest, AnswersTheDefaultsAndDescribesThem) {
  v1::ConfigureOptimizerRequest request;
  request.mutable_optimizer()->set_kind(v1::OPTIMIZER_KIND_ADAMW);
  request.mutable_optimizer()->add_groups();
  const auto answer = client_.ConfigureOptimizer(request);
  ASSERT_THAT(answer, IsOk());
  const v1::ParameterGroup& group = answer->optimizer().groups(0);
  EXPECT_EQ(group.lr(), 1e-3);
  EXPECT_EQ(group.weight_decay(), 0.01);
  EXPECT_EQ(group.beta1(), 0.9);
  EXPECT_EQ(group.beta2(), 0.999);
  EXPECT_EQ(group.eps(), 1e-8);
  EXPECT_EQ(answer->version().params(), 1U);
  EXPECT_EQ(Described().optimizer().SerializeAsString(),
            answer->optimizer().SerializeAsString());
}

TEST_F(OptimizerTest, RefusesOptimizersThatAreNone) {
  const auto expect = [&](const v1::Optimizer& optimizer, const char* message) {
    v1::ConfigureOptimizerRequest request;
    *request.mutable_optimizer() = optimizer;
    EXPECT_THAT(client_.ConfigureOptimizer(request),
                FailsWith(absl::StatusCode::kInvalidArgument,
                          v1::ERROR_REASON_INVALID_OPTION, HasSubstr(message)));
  };
  expect({}, "optimizer kind 0 is unknown, expected SGD, ADAM or ADAMW");
  expect(Sgd(-1),
         "group 0: lr is -1, must be finite in float32 and at least 0");
  v1::Optimizer optimizer = Sgd(1);
  optimizer.add_groups()->mutable_selection()->add_globs("head");
  expect(optimizer, "parameter \"head\" is in group 0 and in group 1");
  optimizer.mutable_groups(0)->mutable_selection()->add_globs("scale");
  optimizer.mutable_groups(1)->set_beta1(0.5);
  expect(optimizer, "group 1: SGD takes no beta1");
  optimizer.set_kind(v1::OPTIMIZER_KIND_ADAM);
  optimizer.mutable_groups(0)->set_nesterov(true);
  expect(optimizer, "group 0: ADAM takes no nesterov");
  EXPECT_FALSE(Described().has_optimizer());
}

// R5, R11
TEST_F(OptimizerTest, RefusesMorePatternsThanAnOptimizerMayHave) {
  const auto expect = [&](const v1::Optimizer& optimizer, const char* message) {
    v1::ConfigureOptimizerRequest request;
    *request.mutable_optimizer() = optimizer;
    EXPECT_THAT(client_.ConfigureOptimizer(request),
                FailsWith(absl::StatusCode::kInvalidArgument,
                          v1::ERROR_REASON_INVALID_OPTION, HasSubstr(message)));
  };
  const auto with_patterns = [&](int count, const std::string& stars) {
    v1::Optimizer optimizer = Sgd(1);
    optimizer.add_groups()->set_lr(1);
    for (int i = 0; i < count; ++i) {
      const bool first = i < count / 2;
      optimizer.mutable_groups(first ? 0 : 1)
          ->mutable_selection()
          ->add_globs(stars + (first ? "head" : "scale"));
    }
    return optimizer;
  };
  const std::string stars(250, '*');
  expect(with_patterns(300, stars),
         "the groups' patterns have 76350 bytes, at most 65536 are allowed");
  expect(with_patterns(4098, "*"),
         "the groups have 4098 patterns, at most 4096 are allowed");
  Configure(with_patterns(250, stars));
}

// R5
TEST_F(OptimizerTest, ItsPatternsCountAsMemoryUntilNobodyHasThem) {
  const auto used = [&] {
    return client_.GetServer()->session_usage().memory_bytes();
  };
  v1::Optimizer optimizer = Sgd(0.5);
  for (int i = 0; i < 250; ++i) {
    optimizer.mutable_groups(0)->mutable_selection()->add_globs(
        std::string(250, '*'));
  }
  const int64_t before = used();
  Configure(optimizer);
  EXPECT_GE(used() - before, 250 * 250);
  SetGrads(2);
  ASSERT_THAT(client_.Step(), IsOk());
  v1::CloneInstanceRequest clone;
  clone.set_instance("fake");
  clone.set_name("clone");
  clone.set_with_optimizer(true);
  ASSERT_THAT(client_.CloneInstance(clone), IsOk());
  EXPECT_GE(used() - before, 250 * 250);
  EXPECT_LT(used() - before, 2 * 250 * 250);  // All share them.
  Configure(Sgd(0.5));
  EXPECT_GE(used() - before, 250 * 250);  // The clone holds them.
  v1::DeleteInstanceRequest remove;
  remove.set_instance("clone");
  ASSERT_THAT(client_.DeleteInstance(remove), IsOk());
  EXPECT_LT(used() - before, 250 * 250);
}

TEST_F(OptimizerTest, StepsWithTheInstancesGradients) {
  Configure(Sgd(0.5));
  SetGrads(2);
  v1::StepRequest request;
  request.mutable_options()->mutable_clip_norm()->set_max_norm(100);
  const auto answer = client_.Step(request);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->version().params(), 2U);
  EXPECT_EQ(answer->result().stepped_count(), 4);
  EXPECT_EQ(answer->result().grad_norm(), 8);
  EXPECT_THAT(Params(), ElementsAre(1, 1, 1, 1, 0, 0, 0, 0,  //
                                    -1, -1, -1, -1, 2, 2, 2, 2));
  EXPECT_EQ(Described().counters().steps(), 1);
}

TEST_F(OptimizerTest, StepTakesNewLearningRatesAndTakesGradientsAway) {
  Configure(Sgd(0.5));
  SetGrads(2);
  v1::StepRequest request;
  request.mutable_options()->add_lr(1);
  request.mutable_options()->set_zero_after(true);
  const auto answer = client_.Step(request);
  ASSERT_THAT(answer, IsOk());
  EXPECT_FALSE(answer->result().has_grad_norm());
  EXPECT_THAT(Params(), ElementsAre(0, 0, 0, 0, -1, -1, -1, -1,  //
                                    -2, -2, -2, -2, 1, 1, 1, 1));
  EXPECT_EQ(Described().optimizer().groups(0).lr(), 1);
  v1::GetGradsRequest grads;
  grads.set_allow_absent(true);
  EXPECT_THAT(client_.GetGrads(grads)->header.grads().present(), Each(false));
}

TEST_F(OptimizerTest, StepTakesNewSettings) {
  v1::Optimizer optimizer;
  optimizer.set_kind(v1::OPTIMIZER_KIND_ADAM);
  optimizer.add_groups()->set_lr(1);
  Configure(optimizer);
  SetGrads(2);
  v1::StepRequest request;
  v1::GroupSettings& settings = *request.mutable_options()->add_settings();
  settings.set_weight_decay(0.125);
  settings.set_maximize(true);
  settings.set_beta1(0.5);
  settings.set_beta2(0.75);
  settings.set_eps(0.25);
  ASSERT_THAT(client_.Step(request), IsOk());
  v1::ParameterGroup group = Described().optimizer().groups(0);
  EXPECT_EQ(group.lr(), 1);
  EXPECT_EQ(group.weight_decay(), 0.125);
  EXPECT_TRUE(group.maximize());
  EXPECT_EQ(group.beta1(), 0.5);
  EXPECT_EQ(group.beta2(), 0.75);
  EXPECT_EQ(group.eps(), 0.25);

  Configure(Sgd(1));
  request.mutable_options()->mutable_settings(0)->Clear();
  settings.set_momentum(0.5);
  settings.set_nesterov(true);
  settings.set_dampening(0);
  ASSERT_THAT(client_.Step(request), IsOk());
  group = Described().optimizer().groups(0);
  EXPECT_EQ(group.momentum(), 0.5);
  EXPECT_TRUE(group.nesterov());
  settings.set_dampening(0.5);
  EXPECT_THAT(client_.Step(request),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_INVALID_OPTION,
                        HasSubstr("group 0: nesterov needs")));
}

TEST_F(OptimizerTest, BackwardTellsWhichGradientsThereAre) {
  v1::BackwardHeader header = BackwardOf(Tape(1), 1);
  header.set_return_grads(true);
  const auto alone = client_.Backward(header, Ones());
  ASSERT_THAT(alone, IsOk());
  EXPECT_THAT(alone->header.held(), IsEmpty());
  header = BackwardOf(Tape(1), 1);
  header.set_return_grads(true);
  header.set_accumulate(true);
  const auto added = client_.Backward(header, Ones());
  ASSERT_THAT(added, IsOk());
  EXPECT_THAT(added->header.held(),
              ElementsAreArray(added->header.grads().present()));
}

TEST_F(OptimizerTest, StepNeedsAnOptimizerGradientsAndTheVersion) {
  EXPECT_THAT(client_.Step(),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_NO_OPTIMIZER,
                        HasSubstr("the instance has no optimizer")));
  EXPECT_THAT(client_.GetOptimizerState(),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_NO_OPTIMIZER, HasSubstr("optimizer")));
  Configure(Sgd(1));
  EXPECT_THAT(client_.Step(),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_NO_GRADIENTS,
                        HasSubstr("run a backward with accumulate")));
  SetGrads(1);
  v1::StepRequest stale;
  stale.mutable_if_version()->set_params(7);
  EXPECT_THAT(client_.Step(stale), FailsWith(absl::StatusCode::kAborted,
                                             v1::ERROR_REASON_STALE_VERSION,
                                             HasSubstr("has params 7, the")));
  v1::StepRequest wrong;
  wrong.mutable_options()->add_lr(1);
  wrong.mutable_options()->add_lr(1);
  EXPECT_THAT(client_.Step(wrong),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_INVALID_OPTION,
                        HasSubstr("lr has 2 values, expected 1")));
  EXPECT_EQ(Described().version().params(), 1U);
}

TEST_F(OptimizerTest, RetriesAreAppliedOnce) {
  v1::ConfigureOptimizerRequest configure;
  configure.set_request_id("configure-1");
  *configure.mutable_optimizer() = Sgd(1);
  v1::StepRequest step;
  step.set_request_id("step-1");
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(client_.ConfigureOptimizer(configure), IsOk());
    SetGrads(1);
    const auto answer = client_.Step(step);
    ASSERT_THAT(answer, IsOk());
    EXPECT_EQ(answer->version().params(), 2U);
  }
  EXPECT_EQ(Described().counters().steps(), 1);
}

TEST_F(OptimizerTest, StateGoesOutAndComesBack) {
  Configure(Sgd(1, /*momentum=*/0.5));
  const auto fresh = client_.GetOptimizerState();
  ASSERT_THAT(fresh, IsOk());
  EXPECT_THAT(fresh->header.tensors(), IsEmpty());
  SetGrads(2);
  EXPECT_THAT(client_.Step(), IsOk());
  const auto state = client_.GetOptimizerState();
  ASSERT_THAT(state, IsOk());
  ASSERT_THAT(state->header.tensors(), SizeIs(4));
  EXPECT_EQ(state->header.tensors(3).name(), "head/momentum_buffer");
  EXPECT_THAT(Floats(state->bytes), AllOf(SizeIs(kElements), Each(2)));

  Configure(Sgd(5));
  v1::SetOptimizerStateHeader header;
  *header.mutable_optimizer() = state->header.optimizer();
  *header.mutable_tensors() = state->header.tensors();
  EXPECT_THAT(client_.SetOptimizerState(header, state->bytes), IsOk());
  EXPECT_THAT(client_.Step(), IsOk());
  // The buffer is 0.5 * 2 + 2.
  EXPECT_THAT(Floats(client_.GetOptimizerState()->bytes), Each(3));
}

TEST_F(OptimizerTest, RefusesStatesThatDoNotFit) {
  v1::SetOptimizerStateHeader header;
  header.mutable_optimizer()->set_kind(v1::OPTIMIZER_KIND_ADAM);
  header.mutable_optimizer()->add_groups();
  const auto expect = [&](const v1::TensorSpec& spec, v1::ErrorReason reason,
                          const char* message) {
    v1::SetOptimizerStateHeader wrong = header;
    *wrong.add_tensors() = spec;
    EXPECT_THAT(client_.SetOptimizerState(wrong, ""),
                FailsWith(absl::StatusCode::kInvalidArgument, reason,
                          HasSubstr(message)));
  };
  expect(FloatSpec({4}, "head/momentum_buffer"),
         v1::ERROR_REASON_INVALID_OPTION,
         "has no tensor \"head/momentum_buffer\"");
  expect(FloatSpec({4}, "tail/exp_avg"), v1::ERROR_REASON_INVALID_OPTION,
         "has no tensor \"tail/exp_avg\"");
  expect(FloatSpec({5}, "head/exp_avg"), v1::ERROR_REASON_SHAPE_MISMATCH,
         "\"head/exp_avg\" is float32 [5], expected float32 [4]");
  expect(FloatSpec({4}, "head/exp_avg"), v1::ERROR_REASON_INVALID_OPTION,
         "the header has no tensor \"head/step\"");
  *header.add_tensors() = FloatSpec({}, "head/step");
  expect(FloatSpec({}, "head/step"), v1::ERROR_REASON_INVALID_OPTION,
         "two tensors \"head/step\"");
  EXPECT_FALSE(Described().has_optimizer());
  EXPECT_EQ(server_.in_flight_bytes(), 0);
}

TEST_F(OptimizerTest, BackwardStepsAsOneCommit) {
  Configure(Sgd(1));
  v1::BackwardHeader header = BackwardOf(Tape(1), 1);
  header.set_accumulate(true);
  header.mutable_step()->set_zero_after(true);
  const auto answer = client_.Backward(header, Ones());
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->header.version().params(), 2U);
  EXPECT_EQ(answer->header.step().stepped_count(), 2);
  EXPECT_THAT(Params(), ElementsAre(-1, -1, -1, -1, 1, 1, 1, 1,  //
                                    0, 0, 0, 0, 1, 1, 1, 1));
  EXPECT_EQ(Described().counters().steps(), 1);
}

TEST_F(OptimizerTest, BackwardIsRefusedBeforeItBeginsIfItCannotStep) {
  const std::string tape = Tape(1);
  v1::BackwardHeader header = BackwardOf(tape, 1);
  header.mutable_step();
  EXPECT_THAT(client_.Backward(header, Ones()),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_INVALID_OPTION,
                        HasSubstr("step needs accumulate")));
  header.set_accumulate(true);
  EXPECT_THAT(client_.Backward(header, Ones()),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_NO_OPTIMIZER, HasSubstr("optimizer")));
  Configure(Sgd(1));
  header.mutable_step()->set_clip_value(-1);
  EXPECT_THAT(client_.Backward(header, Ones()),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_INVALID_OPTION,
                        HasSubstr("clip_value is -1, must be above 0")));
  EXPECT_EQ(server_.tape_count(), 1);
}

TEST_F(OptimizerTest, AFailedStepUsesTheTapesUpAndAddsNothing) {
  v1::Optimizer optimizer = Sgd(1);
  optimizer.mutable_groups(0)->mutable_selection()->add_globs("bn.*");
  Configure(optimizer);
  v1::BackwardHeader header = BackwardOf(Tape(1), 1);
  header.set_accumulate(true);
  header.mutable_step();
  EXPECT_THAT(
      client_.Backward(header, Ones()),
      FailsWith(absl::StatusCode::kFailedPrecondition,
                v1::ERROR_REASON_NO_GRADIENTS,
                AllOf(HasSubstr("has a gradient"),
                      HasSubstr("the tapes are used up, and no gradient or "
                                "parameter has changed"))));
  EXPECT_EQ(server_.tape_count(), 0);
  EXPECT_EQ(Described().version().params(), 1U);
  v1::GetGradsRequest grads;
  grads.set_allow_absent(true);
  EXPECT_THAT(client_.GetGrads(grads)->header.grads().present(), Each(false));
}

TEST_F(OptimizerTest, BackwardGivesTheSumOfSquaresBehindTheSum) {
  v1::BackwardHeader header = BackwardOf(Tape(1), 1);
  *header.add_tapes() = BackwardOf(Tape(10), 1).tapes(0);
  header.set_return_grads(true);
  header.set_squared_grads(true);
  const auto answer = client_.Backward(header, Ones() + Ones());
  ASSERT_THAT(answer, IsOk());
  EXPECT_THAT(answer->header.squared_grads().present(),
              ElementsAre(true, false, false, true));
  EXPECT_THAT(Floats(answer->bytes),
              ElementsAre(33, 33, 33, 33, 22, 22, 22, 22,  //
                          909, 909, 909, 909, 404, 404, 404, 404));
}

TEST_F(OptimizerTest, BackwardGivesEachTapesOwnGradients) {
  v1::BackwardHeader header = BackwardOf(Tape(1), 1);
  *header.add_tapes() = BackwardOf(Tape(10), 1).tapes(0);
  header.set_per_tape_grads(true);
  header.set_accumulate(true);
  const auto answer = client_.Backward(header, Ones() + Ones());
  ASSERT_THAT(answer, IsOk());
  EXPECT_FALSE(answer->header.has_grads());
  ASSERT_THAT(answer->header.tape_grads(), SizeIs(2));
  for (const v1::FlatGrads& grads : answer->header.tape_grads()) {
    EXPECT_THAT(grads.present(), ElementsAre(true, false, false, true));
    EXPECT_THAT(grads.spec().shape(), ElementsAre(8));
  }
  EXPECT_THAT(Floats(answer->bytes),
              ElementsAre(3, 3, 3, 3, 2, 2, 2, 2,  //
                          30, 30, 30, 30, 20, 20, 20, 20));
  v1::GetGradsRequest grads;
  grads.set_allow_absent(true);
  EXPECT_THAT(Floats(client_.GetGrads(grads)->bytes),
              ElementsAre(33, 33, 33, 33, 22, 22, 22, 22));
}

}  // namespace
}  // namespace backboned
