#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "backbones/architectures.h"
#include "backbones/forward.h"
#include "base/errors.h"
#include "base/task.h"
#include "server/compute/backward.h"
#include "server/compute/forward.h"
#include "server/server.h"
#include "tests/backbones/tensors.h"
#include "tests/server/devices.h"
#include "tests/testing/fake_architecture.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::shared_ptr<const Architecture> WideResNet() {
  return Build("wide-resnet", {{"num_classes", int64_t{3}},
                               {"depth", int64_t{10}},
                               {"widen_factor", int64_t{1}},
                               {"dropout", 0.5}});
}

std::shared_ptr<const Architecture> SmallVit() {
  return Build("vit", {{"num_classes", int64_t{3}},
                       {"img_size", int64_t{8}},
                       {"patch_size", int64_t{4}},
                       {"embed_dim", int64_t{4}},
                       {"num_heads", int64_t{2}},
                       {"depth", int64_t{1}}});
}

void ExpectNoMoreMemoryThanBytes(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    EXPECT_EQ(tensor.storage().nbytes(), tensor.nbytes())
        << FormatShape(tensor.sizes());
  }
}

class ComputeTest : public ::testing::Test {
 protected:
  std::shared_ptr<Instance> Add(
      const std::string& name,
      std::shared_ptr<const Architecture> architecture) {
    StatePtr state = Seeded(*architecture);
    auto instance = std::make_shared<Instance>(
        Instance::Identity{.name = name, .owner = "local"},
        std::move(architecture), *server_.workers().front(), std::move(state));
    EXPECT_THAT(server_.registry().Add(instance), IsOk());
    return instance;
  }

  ForwardWork Work(const std::shared_ptr<Instance>& instance,
                   const at::Tensor& input, bool training, bool record) {
    ForwardWork work = {.instance = instance, .inputs = input};
    work.options.training = training;
    work.options.record = record;
    if (record) {
      work.slot = server_.tapes()
                      .Reserve({.principal = "local"}, server_.clock().Now())
                      .value();
      work.account = std::make_shared<MemoryAccount>("max-tape-bytes");
    }
    return work;
  }

  // Runs a forward that must succeed.
  ForwardDone Run(ForwardWork work) {
    absl::StatusOr<ForwardDone> done =
        BlockOn(RunForward(server_.tapes(), server_.accounts(),
                           {.principal = "local"}, std::move(work)));
    EXPECT_THAT(done, IsOk());
    return *std::move(done);
  }

  TapeLease Lease(const Instance& instance,
                  const std::vector<std::string>& ids) {
    return server_.tapes()
        .Lease(ids, instance.uid(), "local", server_.clock().Now())
        .value();
  }

  // Returns a backward with ones as the gradient of each tape's only output.
  BackwardWork BackwardOf(const std::shared_ptr<Instance>& instance,
                          const std::vector<std::string>& ids) {
    BackwardWork work = {.instance = instance,
                         .lease = Lease(*instance, ids),
                         .return_grads = true};
    for (const auto& tape : work.lease.tapes()) {
      work.output_grads.push_back(
          {at::ones(tape->graph->outputs[0].sizes(), at::kFloat)});
    }
    return work;
  }

  // Sets all parameters, as SetParams does.
  static void Write(Instance& instance, float value) {
    EXPECT_THAT(BlockOn(instance.Commit(
                    {.lane = instance.lane()}, {},
                    [value](const State& state) {
                      State next = state;
                      for (at::Tensor& tensor : next.params) {
                        tensor = at::full(tensor.sizes(), value, at::kFloat);
                      }
                      ++next.params_version;
                      return std::make_shared<const State>(std::move(next));
                    })),
                IsOk());
  }

  Server server_{Devices(),
                 /*threads=*/1,
                 {.limits = {.max_tape_bytes = 100'000'000, .quotas = {}}}};
  std::shared_ptr<const FakeArchitecture> fake_ =
      std::make_shared<const FakeArchitecture>(2);
  std::shared_ptr<Instance> net_ = Add("net", fake_);
  at::Tensor x_ = at::tensor({1.F, 2.F, 3.F, 4.F}).view({2, 2});
};

TEST_F(ComputeTest, MovesTheInstancesGeneratorUnlessOneIsGiven) {
  auto net = BuildArchitecture("wide-resnet", {{"num_classes", 3},
                                               {"depth", 10},
                                               {"widen_factor", 1},
                                               {"dropout", 0.5}});
  ASSERT_THAT(net, IsOk());
  const auto instance = Add("wide", *net);
  const std::string at_first = instance->state()->rng_state;
  const at::Tensor input = at::ones({2, 3, 8, 8});
  ForwardWork given = Work(instance, input, /*training=*/true, false);
  given.options.rng_state = GeneratorState(SeededGenerator(5));
  EXPECT_NE(Run(std::move(given)).rng_state, "");
  EXPECT_EQ(instance->state()->rng_state, at_first);

  const ForwardDone done = Run(Work(instance, input, /*training=*/true, false));
  EXPECT_EQ(done.rng_state, "");
  EXPECT_NE(instance->state()->rng_state, at_first);
}

TEST_F(ComputeTest, BackwardIsExactThoughTheParametersChanged) {
  const ForwardDone forward = Run(Work(net_, x_, false, /*record=*/true));
  EXPECT_THAT(ValuesOf(forward.outputs[0]), ElementsAre(6, 12, 18, 24));
  EXPECT_GT(forward.tape_bytes, 0);
  Write(*net_, 100);
  BackwardWork work = BackwardOf(net_, {forward.tape_id});
  work.accumulate = true;
  const auto backward =
      BlockOn(RunBackward({.principal = "local"}, std::move(work)));
  ASSERT_THAT(backward, IsOk());
  EXPECT_THAT(ValuesOf(backward->grads[0]), ElementsAre(12, 18));  // head * x
  EXPECT_FALSE(backward->grads[1].defined());
  EXPECT_FALSE(backward->grads[2].defined());
  EXPECT_THAT(ValuesOf(backward->grads[3]), ElementsAre(8, 12));  // scale * x
  EXPECT_THAT(ValuesOf(net_->state()->grads[0]), ElementsAre(12, 18));
  EXPECT_EQ(net_->state()->params_version, 2U);
  EXPECT_EQ(server_.tapes().TotalFigures().count, 0);
}

// at::batch_norm in training writes the running statistics in place, without
// telling autograd.
TEST_F(ComputeTest, EvalBackwardIsExactThoughTheStatisticsMoved) {
  const auto net =
      Add("resnet", Build("resnet18", {{"num_classes", int64_t{3}},
                                       {"num_filters", int64_t{4}}}));
  const at::Tensor x = Rand(1, {2, 3, 8, 8});
  const auto grads_of = [&](const std::string& id) {
    auto done =
        BlockOn(RunBackward({.principal = "local"}, BackwardOf(net, {id})));
    EXPECT_THAT(done, IsOk());
    return done->grads;
  };
  const ForwardDone undisturbed = Run(Work(net, x, false, /*record=*/true));
  const std::vector<at::Tensor> expected = grads_of(undisturbed.tape_id);

  const ForwardDone eval = Run(Work(net, x, false, /*record=*/true));
  const ForwardDone training = Run(Work(net, x, true, /*record=*/true));
  EXPECT_EQ(training.buffers_version, 2U);
  EXPECT_TRUE(BitEqual(grads_of(eval.tape_id), expected));
  EXPECT_FALSE(BitEqual(grads_of(training.tape_id), expected));
  const ForwardDone later = Run(Work(net, x, false, /*record=*/true));
  EXPECT_FALSE(BitEqual(later.outputs, eval.outputs));
}

TEST_F(ComputeTest, TrainingMovesTheBuffersAsOneCommit) {
  ForwardWork work = Work(net_, x_, /*training=*/true, false);
  work.return_buffers = true;
  const ForwardDone done = Run(std::move(work));
  EXPECT_EQ(done.buffers_version, 2U);
  EXPECT_EQ(net_->state()->buffers_version, 2U);
  EXPECT_EQ(done.buffers[2].item<int64_t>(), 1);
  EXPECT_TRUE(BitEqual(done.buffers, net_->state()->buffers));
}

TEST_F(ComputeTest, SumsTapesTheNewestFirst) {
  // Only newest first gives (big + -big) + 1 = 1.
  std::vector<std::string> ids;
  for (const float value : {1.F, -1e30F, 1e30F}) {
    ids.push_back(
        Run(Work(net_, at::full({1, 2}, value, at::kFloat), false, true))
            .tape_id);
  }
  const auto done = BlockOn(RunBackward(
      {.principal = "local"}, BackwardOf(net_, {ids[1], ids[0], ids[2]})));
  ASSERT_THAT(done, IsOk());
  EXPECT_THAT(ValuesOf(done->grads[0]), ElementsAre(3, 3));
}

TEST_F(ComputeTest, SentBuffersAreUsedAndTheInstancesOwnStay) {
  const auto net = Add("resnet", SmallResNet());
  const StatePtr before = net->state();
  ForwardWork training = Work(net, Images(1), /*training=*/true, false);
  training.return_buffers = true;
  const std::vector<at::Tensor> moved = Run(std::move(training)).buffers;
  const StatePtr own = net->state();

  ForwardWork work = Work(net, Images(1), /*training=*/true, false);
  work.buffers = before->buffers;
  work.return_buffers = true;
  EXPECT_FALSE(ChangesInstance(work));
  const ForwardDone done = Run(std::move(work));
  EXPECT_TRUE(BitEqual(done.buffers, moved));
  EXPECT_EQ(done.buffers_version, 2U);
  EXPECT_EQ(net->state(), own);
}

TEST_F(ComputeTest, SentBuffersLeaveTheGeneratorToMoveOn) {
  const auto net = Add("wide", WideResNet());
  ForwardWork work = Work(net, Images(1), /*training=*/true, false);
  work.buffers = net->state()->buffers;
  EXPECT_TRUE(ChangesInstance(work));
  const std::string at_first = net->state()->rng_state;
  Run(std::move(work));
  EXPECT_NE(net->state()->rng_state, at_first);
  EXPECT_EQ(net->state()->buffers_version, 1U);
}

TEST_F(ComputeTest, AReadOnlyInstanceIsNotMoved) {
  const std::string id = Run(Work(net_, x_, false, /*record=*/true)).tape_id;
  ASSERT_THAT(BlockOn(net_->ChangeSettings(
                  {.lane = net_->lane()}, {},
                  [](Settings& settings) { settings.read_only = true; })),
              IsOk());
  const StatePtr before = net_->state();
  const auto refused =
      BlockOn(RunForward(server_.tapes(), server_.accounts(),
                         {.principal = "local"}, Work(net_, x_, true, true)));
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition,
                                HasSubstr("\"net\" is read-only")));
  EXPECT_EQ(ReasonOf(refused.status()), Reason::kReadOnly);
  BackwardWork accumulating = BackwardOf(net_, {id});
  accumulating.accumulate = true;
  EXPECT_THAT(
      BlockOn(RunBackward({.principal = "local"}, std::move(accumulating))),
      StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(
      BlockOn(RunBackward({.principal = "local"}, BackwardOf(net_, {id}))),
      IsOk());  // The tape was spared.
  ForwardWork sent = Work(net_, x_, /*training=*/true, false);
  sent.buffers = before->buffers;
  Run(std::move(sent));
  EXPECT_EQ(net_->state(), before);
}

// R1
TEST_F(ComputeTest, AFailedForwardKeepsAndPublishesNothing) {
  const StatePtr before = net_->state();
  fake_->OnForward([] { TORCH_CHECK(false, "broken"); });
  const auto done = BlockOn(
      RunForward(server_.tapes(), server_.accounts(), {.principal = "local"},
                 Work(net_, x_, /*training=*/true, true)));
  EXPECT_THAT(done,
              StatusIs(absl::StatusCode::kInternal, HasSubstr("its log has")));
  EXPECT_EQ(net_->state(), before);
  EXPECT_EQ(server_.tapes().TotalFigures().count, 0);
  EXPECT_EQ(net_->counters().forwards, 0);
  fake_->OnForward({});
  Run(Work(net_, x_, true, true));
}

TEST_F(ComputeTest, AFailedBackwardUsesItsTapesUp) {
  const std::string id = Run(Work(net_, x_, false, true)).tape_id;
  fake_->OnBackward([] { TORCH_CHECK(false, "broken"); });
  BackwardWork work = BackwardOf(net_, {id});
  work.accumulate = true;
  EXPECT_THAT(BlockOn(RunBackward({.principal = "local"}, std::move(work))),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("its log has")));
  EXPECT_FALSE(net_->state()->grads[0].defined());
  EXPECT_EQ(server_.tapes().TotalFigures().count, 0);
}

TEST_F(ComputeTest, ABackwardThatNeverBeganGivesItsTapesBack) {
  const std::string id = Run(Work(net_, x_, false, true)).tape_id;
  EXPECT_THAT(BlockOn(RunBackward(
                  {.principal = "local", .deadline = absl::InfinitePast()},
                  BackwardOf(net_, {id}))),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(
      BlockOn(RunBackward({.principal = "local"}, BackwardOf(net_, {id}))),
      IsOk());
}

TEST_F(ComputeTest, RetainKeepsTheTape) {
  const std::string id = Run(Work(net_, x_, false, true)).tape_id;
  std::vector<at::Tensor> first;
  for (int i = 0; i < 2; ++i) {
    BackwardWork work = BackwardOf(net_, {id});
    work.retain = true;
    const auto done =
        BlockOn(RunBackward({.principal = "local"}, std::move(work)));
    ASSERT_THAT(done, IsOk());
    if (i == 0) first = done->grads;
    EXPECT_TRUE(BitEqual(done->grads, first));
  }
  EXPECT_EQ(server_.tapes().TotalFigures().count, 1);
}

// The deletion drops the instance's tapes; one that is being made must not stay
// for good.
TEST_F(ComputeTest, KeepsNoTapeOfAnInstanceThatWasDeletedMeanwhile) {
  absl::Notification started;
  absl::Notification deleted;
  fake_->OnForward([&] {
    started.Notify();
    deleted.WaitForNotification();
  });
  std::thread call([&] { Run(Work(net_, x_, /*training=*/true, true)); });
  started.WaitForNotification();
  EXPECT_THAT(server_.DeleteInstance(*net_), IsOk());
  deleted.Notify();
  call.join();
  EXPECT_EQ(server_.tapes().TotalFigures().count, 0);
}

TEST_F(ComputeTest, RefusesAStaleVersionInTheLane) {
  ForwardWork work = Work(net_, x_, /*training=*/true, true);
  work.condition.buffers = 1;
  Run(Work(net_, x_, true, false));
  EXPECT_THAT(BlockOn(RunForward(server_.tapes(), server_.accounts(),
                                 {.principal = "local"}, std::move(work))),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr("has buffers 1, the instance has 2;")));
  EXPECT_EQ(net_->state()->buffers_version, 2U);
  EXPECT_EQ(server_.tapes().TotalFigures().count, 0);
}

// R5. Answers that are kept for a retry count as many bytes as they have.
TEST_F(ComputeTest, ResultsKeepNoMoreMemoryAliveThanTheirOwn) {
  const auto vit = Add("vit", SmallVit());
  // For one image the class token is a view of all tokens, and so is the result
  // of moving it back.
  const at::Tensor image = Rand(1, {1, 3, 8, 8});
  ForwardWork work = Work(vit, image, /*training=*/false, /*record=*/true);
  work.options.outputs = {"features"};
  const at::Tensor expected =
      Forward(vit->architecture(), *vit->state(), image, work.options)
          .outputs[0]
          .detach();
  const ForwardDone done = Run(std::move(work));
  ExpectNoMoreMemoryThanBytes(done.outputs);
  EXPECT_TRUE(at::equal(done.outputs[0], expected));

  BackwardWork backward = BackwardOf(vit, {done.tape_id});
  backward.per_tape_grads = true;
  const absl::StatusOr<BackwardDone> back =
      BlockOn(RunBackward({.principal = "local"}, std::move(backward)));
  ASSERT_THAT(back, IsOk());
  std::vector<at::Tensor> grads = back->grads;
  grads.insert(grads.end(), back->tape_grads[0].begin(),
               back->tape_grads[0].end());
  std::erase_if(grads, [](const at::Tensor& grad) { return !grad.defined(); });
  EXPECT_FALSE(grads.empty());
  ExpectNoMoreMemoryThanBytes(grads);
}

TEST_F(ComputeTest, ARowsBytesAreThoseOfAForwardAndMoveNoStatistics) {
  const auto net = Add("resnet", SmallResNet());
  const auto expect = [&](const std::string& output) {
    ForwardWork work = Work(net, Images(1), /*training=*/false, false);
    work.options.outputs = {output};
    const StatePtr before = net->state();
    const absl::StatusOr<int64_t> bytes =
        BlockOn(RowBytes({.principal = "local"}, work));
    EXPECT_EQ(net->state(), before);
    const at::Tensor rows = Run(std::move(work)).outputs[0];
    EXPECT_THAT(bytes, IsOkAndHolds(static_cast<int64_t>(rows[0].nbytes())));
  };
  expect("features");
  Run(Work(net, Images(2), /*training=*/true, false));
  EXPECT_EQ(net->state()->buffers_version, 2U);
  expect("features");  // Remembered by now.
  expect("layers.0");
  expect("out");
}

TEST_F(ComputeTest, NormalizesImages) {
  const auto net = std::make_shared<Instance>(
      Instance::Identity{
          .normalization = {.mean = {0.5, 0.25}, .std = {0.5, 0.25}}},
      fake_, *server_.workers().front(), net_->state());
  ForwardWork work =
      Work(net, at::tensor({255, 0, 0, 255}).to(at::kByte).view({2, 2, 1}),
           false, false);
  work.options.outputs = {"features"};
  EXPECT_THAT(ValuesOf(Run(std::move(work)).outputs[0]),
              ElementsAre(2, -2, -2, 6));
}

}  // namespace
}  // namespace backboned
