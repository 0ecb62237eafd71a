#include "server/compute/merged_forward.h"

#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/task.h"
#include "server/compute/forward.h"
#include "server/instances/beginning.h"
#include "server/server.h"
#include "tests/backbones/tensors.h"
#include "tests/server/devices.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

class MergedForwardTest : public ::testing::Test {
 protected:
  std::shared_ptr<Instance> Create(const std::string& name) {
    absl::StatusOr<Created> created =
        BlockOn(server_.CreateInstance({.name = name,
                                        .owner = "local",
                                        .benchmark = "seq-mnist",
                                        .beginning = Drawn{.seed = 0}}));
    EXPECT_THAT(created, IsOk());
    return created->instance;
  }

  static ForwardWork Work(const std::shared_ptr<Instance>& net, at::Tensor x,
                          bool allow_merge = true) {
    return {
        .instance = net, .inputs = std::move(x), .allow_merge = allow_merge};
  }

  at::Tensor Run(ForwardWork work, DeviceWorker::Request request = {}) {
    absl::StatusOr<ForwardDone> done =
        BlockOn(RunForward(server_.tapes(), server_.accounts(),
                           std::move(request), std::move(work)));
    EXPECT_THAT(done, IsOk());
    return done.ok() ? done->outputs.at(0) : at::Tensor();
  }

  // Keeps the device busy until all of `all` wait, and returns their results.
  template <typename... Works>
  std::vector<at::Tensor> RunAtOnce(Works... all) {
    std::vector<ForwardWork> works;
    (works.push_back(std::move(all)), ...);
    DeviceWorker& worker = *server_.workers().front();
    absl::Notification released;
    absl::Notification started;
    std::thread blocker([&] {
      EXPECT_THAT(BlockOn(worker.Run({},
                                     [&] {
                                       started.Notify();
                                       released.WaitForNotification();
                                       return absl::OkStatus();
                                     })),
                  IsOk());
    });
    started.WaitForNotification();
    std::vector<at::Tensor> outputs(works.size());
    std::vector<std::thread> callers;
    for (size_t i = 0; i < works.size(); ++i) {
      callers.emplace_back([&, i] {
        outputs[i] = Run(std::move(works[i]), {.run = std::to_string(i)});
      });
      while (worker.queued() <= static_cast<int64_t>(i)) {
        std::this_thread::yield();
      }
    }
    released.Notify();
    blocker.join();
    for (std::thread& caller : callers) caller.join();
    return outputs;
  }

  DeviceWorker::BatchFigures Figures() {
    return server_.workers().front()->batch_figures();
  }

  Server server_{Devices(), 1, {.scheduling = {.max_batch = 8}}};
  std::shared_ptr<Instance> net_ = Create("net");
  at::Tensor a_ = Rand(1, {2, 1, 28, 28});
  at::Tensor b_ = Rand(2, {3, 1, 28, 28});
};

TEST_F(MergedForwardTest, AloneItGivesTheBitsOfAForwardThatDoesNotMerge) {
  EXPECT_TRUE(BitEqual(Run(Work(net_, a_)), Run(Work(net_, a_, false))));
}

TEST_F(MergedForwardTest, RunsTogetherWhatWaits) {
  const auto got = RunAtOnce(Work(net_, a_), Work(net_, b_));
  EXPECT_EQ(Figures().merged_items, 2);
  EXPECT_TRUE(at::allclose(got[0], Run(Work(net_, a_, false)), 1e-4, 1e-6));
  EXPECT_TRUE(at::allclose(got[1], Run(Work(net_, b_, false)), 1e-4, 1e-6));
}

// R5
TEST_F(MergedForwardTest, AnOutputKeepsNothingOfTheBatchAndItsCallerPays) {
  const auto account = std::make_shared<MemoryAccount>("max-memory-bytes");
  ForwardWork work = Work(net_, a_);
  work.account = account;
  const auto got = RunAtOnce(std::move(work), Work(net_, b_));
  ASSERT_EQ(Figures().merged_items, 2);
  EXPECT_EQ(got[0].storage().nbytes(), got[0].nbytes());
  EXPECT_EQ(got[1].storage().nbytes(), got[1].nbytes());
  EXPECT_EQ(account->live_bytes(), static_cast<int64_t>(got[0].nbytes()));
}

TEST_F(MergedForwardTest, OneThatDoesNotAllowItKeepsItsBitsAmongNeighbours) {
  const at::Tensor alone = Run(Work(net_, a_, false));
  const auto got = RunAtOnce(Work(net_, b_), Work(net_, a_, false),
                             Work(net_, b_), Work(net_, b_));
  EXPECT_TRUE(BitEqual(got[1], alone));
  EXPECT_EQ(Figures().merged_items, 2);  // Eight samples: 3 and 3, not 9.
}

TEST_F(MergedForwardTest, SplitsWhatIsLargerThanABatch) {
  const at::Tensor x = Rand(3, {20, 1, 28, 28});
  const at::Tensor got = Run(Work(net_, x));
  EXPECT_TRUE(at::allclose(got, Run(Work(net_, x, false)), 1e-4, 1e-6));
  EXPECT_EQ(Figures().samples, 20);
  EXPECT_EQ(
      Figures().batches[static_cast<size_t>(BatchReason::kFull)] +
          Figures().batches[static_cast<size_t>(BatchReason::kDeviceIdle)] +
          Figures().batches[static_cast<size_t>(BatchReason::kIncompatible)],
      3);
}

TEST_F(MergedForwardTest, OneOfMorePiecesThanTheQueueTakesIsAdmitted) {
  Server server(Devices(), 1,
                {.limits = {.max_queued = 2}, .scheduling = {.max_batch = 8}});
  const auto created =
      BlockOn(server.CreateInstance({.owner = "local",
                                     .benchmark = "seq-mnist",
                                     .beginning = Drawn{.seed = 0}}));
  ASSERT_THAT(created, IsOk());
  const at::Tensor x = Rand(3, {100, 1, 28, 28});
  const absl::StatusOr<ForwardDone> done = BlockOn(RunForward(
      server.tapes(), server.accounts(), {}, Work(created->instance, x)));
  ASSERT_THAT(done, IsOk());
  EXPECT_TRUE(
      at::allclose(done->outputs.at(0), Run(Work(net_, x, false)), 1e-4, 1e-6));
  EXPECT_EQ(server.workers().front()->batch_figures().samples, 100);
}

TEST_F(MergedForwardTest, OneOfManyPiecesLeavesItsRunItsQueue) {
  DeviceWorker& worker = *server_.workers().front();
  const at::Tensor x = Rand(3, {40, 1, 28, 28});
  absl::Notification released;
  absl::Notification started;
  std::thread blocker([&] {
    EXPECT_THAT(BlockOn(worker.Run({},
                                   [&] {
                                     started.Notify();
                                     released.WaitForNotification();
                                     return absl::OkStatus();
                                   })),
                IsOk());
  });
  started.WaitForNotification();
  std::atomic<bool> ended = false;
  std::thread caller([&] {
    Run(Work(net_, x));
    ended = true;
  });
  while (worker.queued() == 0) std::this_thread::yield();
  EXPECT_EQ(worker.queued(), 1);
  released.Notify();
  blocker.join();
  int64_t most_queued = 0;
  while (!ended) most_queued = std::max(most_queued, worker.queued());
  caller.join();
  EXPECT_LE(most_queued, 1);
  EXPECT_EQ(Figures().samples, 40);
}

TEST_F(MergedForwardTest, ClonesRunTogetherUntilOneIsWritten) {
  const auto clone =
      BlockOn(server_.CreateInstance({.name = "clone",
                                      .owner = "local",
                                      .beginning = Cloned{.source = net_}}));
  ASSERT_THAT(clone, IsOk());
  RunAtOnce(Work(net_, a_), Work(clone->instance, b_));
  EXPECT_EQ(Figures().merged_items, 2);
  ASSERT_THAT(BlockOn(clone->instance->Commit(
                  {}, {},
                  [](const State& state) {
                    State next = state;
                    next.params = Copies(state.params);
                    return std::make_shared<const State>(next);
                  })),
              IsOk());
  RunAtOnce(Work(net_, a_), Work(clone->instance, b_));
  EXPECT_EQ(Figures().merged_items, 2);
}

TEST_F(MergedForwardTest, NothingMergesWithoutBatches) {
  Server server(Devices(), 1, {.scheduling = {.max_batch = 0}});
  const auto created = BlockOn(
      server.CreateInstance({.owner = "local", .benchmark = "seq-mnist"}));
  ASSERT_THAT(created, IsOk());
  EXPECT_FALSE(MayMerge(Work(created->instance, a_)));
}

TEST_F(MergedForwardTest, ForwardsThatChangeSomethingOrAreKeptDoNot) {
  EXPECT_TRUE(MayMerge(Work(net_, a_)));
  ForwardWork training = Work(net_, a_);
  training.options.training = true;
  EXPECT_FALSE(MayMerge(training));
  ForwardWork kept = Work(net_, a_);
  kept.options.record = true;
  EXPECT_FALSE(MayMerge(kept));
  EXPECT_FALSE(MayMerge(Work(net_, at::empty({0, 1, 28, 28}))));
}

}  // namespace
}  // namespace backboned
