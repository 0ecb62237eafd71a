// Tests work that runs together on a DeviceWorker.

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/task.h"
#include "server/device/device_worker.h"
#include "server/limits/memory_account.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_clock.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// Records its batches' sizes, and runs its hook.
class Job : public BatchWork {
 public:
  using Hook = std::function<absl::Status(std::span<BatchWork* const>)>;

  explicit Job(Hook hook = {}) : hook_(std::move(hook)) {}

  int64_t NextSamples() const override { return turns > 0 ? samples : 0; }

  absl::Status RunBatch(std::span<BatchWork* const> batch) override {
    EXPECT_EQ(batch[0], this);
    absl::Status status = hook_ ? hook_(batch) : absl::OkStatus();
    if (!status.ok()) return status;
    for (BatchWork* work : batch) {
      auto& job = *static_cast<Job*>(work);
      job.together = static_cast<int>(batch.size());
      --job.turns;
    }
    return absl::OkStatus();
  }

  int together = 0;     // In its last turn.
  int turns = 1;        // Still to run.
  int64_t samples = 1;  // Of each turn.

 private:
  Hook hook_;
};

class BatchWorkTest : public ::testing::Test {
 protected:
  // The payer of a job, and its samples.
  struct Paid {
    std::shared_ptr<MemoryAccount> account = nullptr;
    int64_t samples = 1;
    std::shared_ptr<WorkMeter> meter = nullptr;
  };

  absl::Status RunTogether(Job& job, DeviceWorker::Request request) {
    return BlockOn(worker_.RunTogether(request, job)).status();
  }

  // Runs `jobs`, paid for by `paid`, so that all of them wait when the worker
  // becomes free, and returns how each ended.
  std::vector<absl::Status> RunAtOnce(const std::vector<Job*>& jobs,
                                      uint64_t merge_key = 1,
                                      std::vector<Paid> paid = {}) {
    paid.resize(jobs.size());
    std::vector<absl::Status> ends(jobs.size());
    std::vector<std::thread> threads;
    absl::Notification started;
    absl::Notification released;
    threads.emplace_back([&] {
      EXPECT_THAT(BlockOn(worker_.Run({},
                                      [&] {
                                        started.Notify();
                                        released.WaitForNotification();
                                        return absl::OkStatus();
                                      })),
                  IsOk());
    });
    started.WaitForNotification();
    for (size_t i = 0; i < jobs.size(); ++i) {
      threads.emplace_back([&, i] {
        jobs[i]->samples = paid[i].samples;
        ends[i] = RunTogether(*jobs[i], {.account = paid[i].account,
                                         .meter = paid[i].meter,
                                         .merge_key = merge_key});
      });
      while (worker_.queued() <= static_cast<int64_t>(i)) {
        std::this_thread::yield();
      }
    }
    released.Notify();
    for (std::thread& thread : threads) thread.join();
    return ends;
  }

  std::thread other_;
  TestClock clock_;
  DeviceWorker worker_{
      c10::Device(c10::DeviceType::CPU), /*threads=*/1, {}, clock_};
};

// R5
TEST_F(BatchWorkTest, TheOneOfMostSamplesPaysForABatch) {
  const auto small = std::make_shared<MemoryAccount>("small");
  const auto large = std::make_shared<MemoryAccount>("large");
  std::shared_ptr<MemoryAccount> paying;
  Job a, b;
  Job first([&](std::span<BatchWork* const>) {
    paying = ScopedAccount::Current();
    return absl::OkStatus();
  });
  EXPECT_THAT(RunAtOnce({&first, &a, &b}, 1, {{small, 2}, {large, 3}, {{}, 1}}),
              ElementsAre(IsOk(), IsOk(), IsOk()));
  EXPECT_EQ(first.together, 3);
  EXPECT_EQ(paying, large);
}

// R5
TEST_F(BatchWorkTest, EachPaysForItselfWhereTheBatchDidNotFit) {
  const auto small = std::make_shared<MemoryAccount>("small");
  const auto large = std::make_shared<MemoryAccount>("large");
  std::vector<std::shared_ptr<MemoryAccount>> paying;
  const Job::Hook hook = [&](std::span<BatchWork* const> batch) {
    if (batch.size() > 1) {
      throw OutOfMemoryBudget(absl::ResourceExhaustedError("too much"));
    }
    paying.push_back(ScopedAccount::Current());
    return absl::OkStatus();
  };
  Job a(hook), b(hook);
  EXPECT_THAT(RunAtOnce({&a, &b}, 1, {{small, 2}, {large, 3}}),
              ElementsAre(IsOk(), IsOk()));
  EXPECT_THAT(paying, ElementsAre(small, large));
}

TEST_F(BatchWorkTest, RunsWhatWaitsTogether) {
  Job a, b, c;
  EXPECT_THAT(RunAtOnce({&a, &b, &c}), ElementsAre(IsOk(), IsOk(), IsOk()));
  EXPECT_EQ(a.together, 3);
  EXPECT_EQ(c.together, 3);
  const DeviceWorker::BatchFigures figures = worker_.batch_figures();
  EXPECT_EQ(figures.batches[static_cast<size_t>(BatchReason::kDeviceIdle)], 1);
  EXPECT_EQ(figures.merged_items, 3);
  EXPECT_EQ(figures.samples, 3);
}

TEST_F(BatchWorkTest, RunsAloneWithoutKey) {
  Job a, b;
  EXPECT_THAT(RunAtOnce({&a, &b}, /*merge_key=*/0),
              ElementsAre(IsOk(), IsOk()));
  EXPECT_EQ(a.together, 1);
  EXPECT_EQ(b.together, 1);
  EXPECT_EQ(worker_.batch_figures().merged_items, 0);
}

TEST_F(BatchWorkTest, OthersHaveTheirTurnBetweenTwoOfOne) {
  std::vector<std::string> order;
  Job many([&](std::span<BatchWork* const>) {
    order.push_back("many");
    if (order.size() > 1) return absl::OkStatus();
    // The next job comes after those that wait by then.
    other_ = std::thread([&] {
      EXPECT_THAT(BlockOn(worker_.Run({.run = "other"},
                                      [&] {
                                        order.push_back("other");
                                        return absl::OkStatus();
                                      })),
                  IsOk());
    });
    while (worker_.queued() == 0) std::this_thread::yield();
    return absl::OkStatus();
  });
  many.turns = 3;
  EXPECT_THAT(RunTogether(many, {.run = "many"}), IsOk());
  other_.join();
  EXPECT_THAT(order, ElementsAre("many", "other", "many", "many"));
}

TEST_F(BatchWorkTest, AFailureIsTheLastTurn) {
  int runs = 0;
  Job fails([&](std::span<BatchWork* const>) {
    return ++runs == 2 ? absl::DataLossError("lost") : absl::OkStatus();
  });
  fails.turns = 4;
  EXPECT_THAT(RunTogether(fails, {}),
              StatusIs(absl::StatusCode::kDataLoss, "lost"));
  EXPECT_EQ(runs, 2);
}

TEST_F(BatchWorkTest, FailureOfABatchIsTheFailureOfItsCause) {
  const auto fail = [](std::span<BatchWork* const>) {
    return absl::InvalidArgumentError("mine");
  };
  Job bad(fail);
  Job good;
  // The bad one leads, so that the batch fails; alone, the good one succeeds.
  EXPECT_THAT(RunAtOnce({&bad, &good}),
              ElementsAre(StatusIs(absl::StatusCode::kInvalidArgument, "mine"),
                          IsOk()));
  EXPECT_EQ(good.together, 1);
}

TEST_F(BatchWorkTest, AMemberWhoseCallerHasGonePaysNothing) {
  absl::Notification started;
  absl::Notification released;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    EXPECT_THAT(BlockOn(worker_.Run({.run = "blocker"},
                                    [&] {
                                      started.Notify();
                                      released.WaitForNotification();
                                      return absl::OkStatus();
                                    })),
                IsOk());
  });
  started.WaitForNotification();
  // The caller goes between the choice of the batch and its run: as the worker
  // lets another caller go on, whose deadline has passed.
  std::stop_source stop;
  const absl::Duration left = absl::Milliseconds(10);
  const DeviceWorker::Request late = {.run = "late",
                                      .deadline = clock_.Now() + left};
  const DeviceWorker::Work nothing = [] { return absl::OkStatus(); };
  const auto stop_after_the_deadline = [&]() -> Detached {
    const auto times = co_await worker_.Run(late, nothing);
    EXPECT_THAT(times, StatusIs(absl::StatusCode::kDeadlineExceeded));
    stop.request_stop();
  };
  stop_after_the_deadline();
  Job abandoned;
  Job wanted([this](std::span<BatchWork* const> /*batch*/) {
    clock_.Advance(absl::Milliseconds(1));
    return absl::OkStatus();
  });
  threads.emplace_back([&] {
    EXPECT_THAT(
        RunTogether(abandoned,
                    {.run = "gone", .stop = stop.get_token(), .merge_key = 1}),
        StatusIs(absl::StatusCode::kCancelled));
  });
  while (worker_.queued() < 2) std::this_thread::yield();
  // Behind the batch, `stays` is the first to come; but it has paid, and `gone`
  // has not.
  std::vector<std::string> order;
  const auto submit = [&](auto run) {
    const int64_t before = worker_.queued();
    threads.emplace_back(run);
    while (worker_.queued() == before) std::this_thread::yield();
  };
  submit([&] {
    EXPECT_THAT(RunTogether(wanted, {.run = "stays", .merge_key = 1}), IsOk());
  });
  for (const std::string run : {"stays", "gone"}) {
    submit([&, run] {
      EXPECT_THAT(BlockOn(worker_.Run({.run = run},
                                      [&, run] {
                                        order.push_back(run);
                                        return absl::OkStatus();
                                      })),
                  IsOk());
    });
  }
  clock_.Advance(left);
  released.Notify();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(abandoned.together, 0);
  EXPECT_EQ(wanted.together, 1);
  EXPECT_THAT(order, ElementsAre("gone", "stays"));
}

TEST_F(BatchWorkTest, BatchTooLargeForMemoryIsRunOneByOne) {
  const auto throw_together = [](std::span<BatchWork* const> batch) {
    if (batch.size() > 1) TORCH_CHECK_WITH(OutOfMemoryError, false, "too much");
    return absl::OkStatus();
  };
  Job a(throw_together), b(throw_together);
  EXPECT_THAT(RunAtOnce({&a, &b}), ElementsAre(IsOk(), IsOk()));
  EXPECT_EQ(a.together, 1);
  EXPECT_EQ(b.together, 1);
}

TEST_F(BatchWorkTest, MetersDivideTheTimeOfABatchBySamples) {
  std::vector<std::shared_ptr<WorkMeter>> meters;
  for (int i = 0; i < 3; ++i) meters.push_back(std::make_shared<WorkMeter>());
  const auto work = [this](std::span<BatchWork* const>) {
    clock_.Advance(absl::Seconds(6));
    return absl::OkStatus();
  };
  std::vector<Job> jobs(3, Job(work));
  const absl::Duration before = worker_.busy();
  EXPECT_THAT(RunAtOnce({&jobs[0], &jobs[1], &jobs[2]}, 1,
                        {{.samples = 1, .meter = meters[0]},
                         {.samples = 3, .meter = meters[1]},
                         {.samples = 2, .meter = meters[2]}}),
              ElementsAre(IsOk(), IsOk(), IsOk()));
  EXPECT_EQ(jobs[0].together, 3);
  EXPECT_EQ(meters[0]->time(), absl::Seconds(1));
  EXPECT_EQ(meters[1]->time(), absl::Seconds(3));
  EXPECT_EQ(meters[2]->time(), absl::Seconds(2));
  EXPECT_EQ(worker_.busy() - before, absl::Seconds(6));
}

TEST_F(BatchWorkTest, AMeterHasAllTurnsAndTheTimeOfAFailure) {
  Job job([this, turn = 0](std::span<BatchWork* const>) mutable {
    clock_.Advance(absl::Seconds(2));
    return ++turn < 3 ? absl::OkStatus() : absl::DataLossError("lost");
  });
  job.turns = 5;
  const auto meter = std::make_shared<WorkMeter>();
  EXPECT_THAT(RunTogether(job, {.meter = meter, .merge_key = 1}),
              StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_EQ(meter->time(), absl::Seconds(6));
}

}  // namespace
}  // namespace backboned
