#include "server/compute/train.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/errors.h"
#include "base/task.h"
#include "server/server.h"
#include "tests/backbones/tensors.h"
#include "tests/server/devices.h"
#include "tests/testing/fake_architecture.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

constexpr int64_t kSize = 2;

class TrainTest : public ::testing::Test {
 protected:
  TrainTest() {
    const OptimizerPtr sgd =
        MakeOptimizer(OptimizerKind::kSgd, {{.lr = 1}}, fake_->layout())
            .value();
    Change([&](const State& state) { return WithOptimizer(state, sgd); });
  }

  void Change(const std::function<StatePtr(const State&)>& change) {
    EXPECT_THAT(BlockOn(net_->Commit({.lane = net_->lane()}, {}, change)),
                IsOk());
  }

  // Returns a step with two samples of ones and their squared error to zeros.
  TrainWork Work() {
    TrainWork work;
    work.forward = {.instance = net_, .inputs = at::ones({2, kSize})};
    work.forward.options.training = true;
    work.terms = {
        {.row_end = 2, .loss = MeanSquaredError{at::zeros({2, kSize})}}};
    return work;
  }

  Server server_{Devices(), /*threads=*/1, {}};
  std::shared_ptr<const FakeArchitecture> fake_ =
      std::make_shared<const FakeArchitecture>(kSize);
  std::shared_ptr<Instance> net_ = std::make_shared<Instance>(
      Instance::Identity{.name = "net", .owner = "local"}, fake_,
      *server_.workers().front(), Seeded(*fake_));
};

TEST_F(TrainTest, AStepPublishesTheStateThatItGives) {
  Change([](const State& state) {
    State next = state;
    next.grads[0] = at::ones({kSize});
    return std::make_shared<const State>(std::move(next));
  });
  const StatePtr before = net_->state();
  const auto done = BlockOn(RunStep({.principal = "local"}, *net_, {}, {}));
  ASSERT_THAT(done, IsOk());
  EXPECT_EQ(net_->state(), done->output.state);
  EXPECT_THAT(ValuesOf(net_->state()->params[0]), ElementsAre(1, 1));
  EXPECT_THAT(ValuesOf(before->params[0]), ElementsAre(2, 2));
  EXPECT_EQ(net_->counters().steps, 1);
}

TEST_F(TrainTest, ARefusedStepPublishesNothing) {
  const StatePtr before = net_->state();
  const absl::Status status =
      BlockOn(RunStep({.principal = "local"}, *net_, {}, {})).status();
  EXPECT_THAT(ReasonOf(status), Optional(Reason::kNoGradients));
  EXPECT_EQ(net_->state(), before);
  EXPECT_EQ(net_->counters().steps, 0);
}

TEST_F(TrainTest, ADeletedInstanceIsNotStepped) {
  net_->MarkDeleted();
  EXPECT_THAT(BlockOn(RunStep({.principal = "local"}, *net_, {}, {})),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("deleted")));
}

TEST_F(TrainTest, ATrainStepPublishesOneState) {
  const StatePtr before = net_->state();
  const auto done = BlockOn(RunTrainStep({.principal = "local"}, Work()));
  ASSERT_THAT(done, IsOk());
  const StatePtr after = net_->state();
  EXPECT_EQ(after, done->step.state);
  EXPECT_EQ(after->params_version, before->params_version + 1);
  EXPECT_EQ(after->buffers_version, before->buffers_version + 1);
  EXPECT_FALSE(after->grads[0].defined());
  EXPECT_FALSE(done->logits.defined());
}

TEST_F(TrainTest, AFailedTrainStepPublishesNothing) {
  const StatePtr before = net_->state();
  const auto expect = [&](TrainWork work, absl::StatusCode code,
                          const char* message) {
    EXPECT_THAT(BlockOn(RunTrainStep({.principal = "local"}, std::move(work))),
                StatusIs(code, HasSubstr(message)));
    EXPECT_EQ(net_->state(), before);
  };
  TrainWork narrow = Work();
  narrow.terms[0].loss = MeanSquaredError{at::zeros({2, 1})};
  expect(std::move(narrow), absl::StatusCode::kInvalidArgument,
         "term 0: the target has 1 columns, expected 2, one for each class");
  TrainWork rates = Work();
  rates.step.lr = {1, 2};
  expect(std::move(rates), absl::StatusCode::kInvalidArgument,
         "lr has 2 values");
  fake_->OnBackward([] { TORCH_CHECK(false, "broken"); });
  expect(Work(), absl::StatusCode::kInternal, "its log has");
}

}  // namespace
}  // namespace backboned
