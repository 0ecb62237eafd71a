#include "server/device/device_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <new>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/errors.h"
#include "base/task.h"
#include "server/limits/memory_account.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_clock.h"
#include "tests/testing/wall_clock.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;

// Waits until `worker` has more than `before` items in its queue.
void WaitForQueue(const DeviceWorker& worker, int64_t before) {
  while (worker.queued() <= before) std::this_thread::yield();
}

// A call on its own thread that waits for its turn on the worker.
class WaitingCall {
 public:
  // Returns once the work waits in the worker's queue.
  WaitingCall(DeviceWorker& worker, DeviceWorker::Work work, uint64_t lane = 0,
              absl::Time deadline = absl::InfiniteFuture(),
              const std::string& run = "") {
    const DeviceWorker::Request request = {.run = run,
                                           .lane = lane,
                                           .deadline = deadline,
                                           .stop = stop_.get_token()};
    const int64_t before = worker.queued();
    thread_ = std::thread([this, &worker, request, work = std::move(work)] {
      status_ = BlockOn(worker.Run(request, work)).status();
    });
    WaitForQueue(worker, before);
  }
  ~WaitingCall() {
    if (thread_.joinable()) thread_.join();
  }

  void Cancel() { stop_.request_stop(); }

  // Returns how the call ended.
  absl::Status End() {
    thread_.join();
    return status_;
  }

 private:
  std::stop_source stop_;
  absl::Status status_;
  std::thread thread_;
};

// Keeps a worker busy from its construction until Release.
class Blocker {
 public:
  explicit Blocker(DeviceWorker& worker, uint64_t lane = 0)
      : thread_([this, &worker, lane] {
          EXPECT_THAT(BlockOn(worker.Run({.lane = lane},
                                         [this] {
                                           started_.Notify();
                                           released_.WaitForNotification();
                                           return absl::OkStatus();
                                         })),
                      IsOk());
        }) {
    started_.WaitForNotification();
  }
  ~Blocker() { Release(); }

  // Returns once the worker is free.
  void Release() {
    if (!thread_.joinable()) return;
    released_.Notify();
    thread_.join();
  }

 private:
  absl::Notification started_;
  absl::Notification released_;
  std::thread thread_;
};

class DeviceWorkerTest : public ::testing::Test {
 protected:
  absl::Status Run(const DeviceWorker::Work& work) {
    return BlockOn(worker_.Run({}, work)).status();
  }

  DeviceWorker worker_{
      c10::Device(c10::DeviceType::CPU), /*threads=*/1, {.max_queued = 3}};
};

TEST_F(DeviceWorkerTest, RunsEverythingOnOneThreadOfItsOwn) {
  std::vector<std::thread::id> ids;
  for (int i = 0; i < 2; ++i) {
    ASSERT_THAT(Run([&ids] {
                  ids.push_back(std::this_thread::get_id());
                  return absl::OkStatus();
                }),
                IsOk());
  }
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_NE(ids[0], std::this_thread::get_id());
  EXPECT_EQ(worker_.threads(), 1);
}

TEST_F(DeviceWorkerTest, ReturnsWhatTheWorkReturns) {
  EXPECT_THAT(Run([] { return absl::DataLossError("lost"); }),
              StatusIs(absl::StatusCode::kDataLoss, "lost"));
  EXPECT_THAT(Run([] { return absl::OkStatus(); }), IsOk());
}

TEST_F(DeviceWorkerTest, RunsALaneInTheOrderOfSubmission) {
  std::vector<int> order;
  const auto work = [&order](int i) {
    return [&order, i] {
      order.push_back(i);
      return absl::OkStatus();
    };
  };
  Blocker blocker(worker_, /*lane=*/7);
  WaitingCall first(worker_, work(1), /*lane=*/7);
  WaitingCall second(worker_, work(2), /*lane=*/7);
  WaitingCall third(worker_, work(3), /*lane=*/7);
  blocker.Release();
  EXPECT_THAT(first.End(), IsOk());
  EXPECT_THAT(second.End(), IsOk());
  EXPECT_THAT(third.End(), IsOk());
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

// R6
TEST_F(DeviceWorkerTest, AnswersCancelledWorkWithoutStartingIt) {
  bool started = false;
  Blocker blocker(worker_);
  WaitingCall call(worker_, [&started] {
    started = true;
    return absl::OkStatus();
  });
  call.Cancel();
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kCancelled));
  blocker.Release();
  EXPECT_THAT(Run([] { return absl::OkStatus(); }), IsOk());
  EXPECT_FALSE(started);
}

// R6
TEST_F(DeviceWorkerTest, NeverStartsWorkThatWasCancelledBefore) {
  std::stop_source stop;
  stop.request_stop();
  bool started = false;
  EXPECT_THAT(BlockOn(worker_.Run({.stop = stop.get_token()},
                                  [&started] {
                                    started = true;
                                    return absl::OkStatus();
                                  })),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_FALSE(started);
  EXPECT_EQ(worker_.queued(), 0);
}

// R6
TEST_F(DeviceWorkerTest, ManyThatAreCancelledAsTheirTurnComesEndOnce) {
  for (int round = 0; round < 200; ++round) {
    std::stop_source stop;
    std::thread client([&stop] { stop.request_stop(); });
    bool started = false;
    const absl::Status status =
        BlockOn(worker_.Run({.stop = stop.get_token()}, [&started] {
          started = true;
          return absl::OkStatus();
        })).status();
    client.join();
    EXPECT_EQ(started, status.ok());
    EXPECT_TRUE(status.ok() || absl::IsCancelled(status)) << status;
  }
}

// R6
TEST_F(DeviceWorkerTest, NeverStartsWorkAfterItsDeadline) {
  bool started = false;
  const DeviceWorker::Work work = [&started] {
    started = true;
    return absl::OkStatus();
  };
  EXPECT_THAT(BlockOn(worker_.Run({.deadline = absl::InfinitePast()}, work)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  Blocker blocker(worker_);
  const absl::Time deadline = MonotonicClock().Now() + absl::Milliseconds(30);
  WaitingCall turn_comes(worker_, work, /*lane=*/0, deadline);
  WaitingCall stopped(worker_, work, /*lane=*/0, deadline);
  absl::SleepFor(deadline - MonotonicClock().Now());
  stopped.Cancel();
  EXPECT_THAT(stopped.End(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  blocker.Release();
  EXPECT_THAT(turn_comes.End(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_FALSE(started);
}

TEST_F(DeviceWorkerTest, FinishesWorkThatIsCancelledAfterItsStart) {
  std::stop_source stop;
  EXPECT_THAT(BlockOn(worker_.Run({.stop = stop.get_token()},
                                  [&stop] {
                                    stop.request_stop();
                                    return absl::OkStatus();
                                  })),
              IsOk());
}

TEST_F(DeviceWorkerTest, RefusesWorkOverTheQueueLimit) {
  Blocker blocker(worker_);
  const auto nothing = [] { return absl::OkStatus(); };
  WaitingCall first(worker_, nothing);
  WaitingCall second(worker_, nothing);
  WaitingCall third(worker_, nothing);
  const absl::Status refused = Run(nothing);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted));
  ASSERT_TRUE(LimitOf(refused).has_value());
  EXPECT_EQ(LimitOf(refused)->name, "max-queued");
  EXPECT_EQ(LimitOf(refused)->value, 3);
  EXPECT_EQ(LimitOf(refused)->requested, 4);
  blocker.Release();
  EXPECT_THAT(first.End(), IsOk());
  EXPECT_THAT(Run(nothing), IsOk());
}

// Shares do not depend on the wall clock.
TEST(DeviceWorkerClockTest, RunsTakeTurnsThoughTheWallClockIsSetBack) {
  TestClock clock;
  DeviceWorker worker(c10::Device(c10::DeviceType::CPU), /*threads=*/1, {},
                      clock);
  std::string turns;
  const auto submit = [&](char run) {
    return std::make_unique<WaitingCall>(
        worker,
        [&clock, &turns, run] {
          turns += run;
          clock.Advance(absl::Seconds(1));
          StepWallClock(run == 'a' ? -absl::Hours(1) : absl::Hours(1));
          return absl::OkStatus();
        },
        /*lane=*/0, absl::InfiniteFuture(), std::string(1, run));
  };
  Blocker blocker(worker);
  std::vector<std::unique_ptr<WaitingCall>> calls;
  for (const char run : {'a', 'a', 'a', 'b', 'b', 'b'}) {
    calls.push_back(submit(run));
  }
  blocker.Release();
  for (const auto& call : calls) EXPECT_THAT(call->End(), IsOk());
  EXPECT_EQ(turns, "ababab");
}

// Counts the items that run together.
class CountingWork : public BatchWork {
 public:
  int64_t NextSamples() const override { return together_ == 0 ? 1 : 0; }
  absl::Status RunBatch(std::span<BatchWork* const> batch) override {
    together_ = batch.size();
    return absl::OkStatus();
  }
  size_t together() const { return together_; }

 private:
  size_t together_ = 0;
};

TEST_F(DeviceWorkerTest, PlainWorkNeverRunsTogetherWithABatch) {
  DeviceWorker worker(c10::Device(c10::DeviceType::CPU), /*threads=*/1,
                      {.max_batch = 8});
  Blocker blocker(worker);
  bool ran = false;
  CountingWork work;
  std::thread batch([&] {
    EXPECT_THAT(BlockOn(worker.RunTogether({.merge_key = 7}, work)), IsOk());
  });
  WaitForQueue(worker, 0);
  std::thread plain([&] {
    EXPECT_THAT(BlockOn(worker.Run({.merge_key = 7},
                                   [&] {
                                     ran = true;
                                     return absl::OkStatus();
                                   })),
                IsOk());
  });
  WaitForQueue(worker, 1);
  blocker.Release();
  batch.join();
  plain.join();
  EXPECT_TRUE(ran);
  EXPECT_EQ(work.together(), 1);
}

TEST_F(DeviceWorkerTest, OutlivesWhatItsWorkThrows) {
  const absl::Status status =
      Run([]() -> absl::Status { throw std::runtime_error("odd"); });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal));
  EXPECT_EQ(ReasonOf(status), Reason::kComputeFailed);
  EXPECT_THAT(Run([] { return absl::OkStatus(); }), IsOk());
}

// R10
TEST_F(DeviceWorkerTest, TurnsMissingMemoryIntoResourceExhausted) {
  const absl::Status system =
      Run([]() -> absl::Status { throw std::bad_alloc(); });
  EXPECT_THAT(system, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(ReasonOf(system), Reason::kOutOfMemory);

  const absl::Status budget = Run([]() -> absl::Status {
    throw OutOfMemoryBudget(LimitReached(
        {.name = "max-memory-bytes", .value = 10, .requested = 12}, "full"));
  });
  EXPECT_THAT(budget, StatusIs(absl::StatusCode::kResourceExhausted, "full"));
  ASSERT_TRUE(LimitOf(budget).has_value());
  EXPECT_EQ(LimitOf(budget)->name, "max-memory-bytes");
  EXPECT_THAT(Run([] { return absl::OkStatus(); }), IsOk());
}

// Waits until it is interrupted, or has nothing to do.
class CountingTask final : public DeviceWorker::IdleTask {
 public:
  bool Run(absl::Duration /*at_most*/) override {
    absl::MutexLock lock(&mutex_);
    ++runs_;
    if (!has_work_) return false;
    mutex_.Await(absl::Condition(&interrupted_));
    interrupted_ = false;
    return true;
  }
  void Interrupt() override {
    absl::MutexLock lock(&mutex_);
    interrupted_ = true;
  }

  // Lets Run return at once.
  void HaveNothingToDo() {
    absl::MutexLock lock(&mutex_);
    has_work_ = false;
  }
  int runs() {
    absl::MutexLock lock(&mutex_);
    return runs_;
  }
  void AwaitRuns(int more_than) {
    while (runs() <= more_than) std::this_thread::yield();
  }

 private:
  absl::Mutex mutex_;
  bool has_work_ = true;
  bool interrupted_ = false;
  int runs_ = 0;
};

TEST_F(DeviceWorkerTest, RunsItsIdleTaskWhileItHasNoWork) {
  CountingTask task;
  worker_.SetIdleTask(&task);
  for (int i = 0; i < 3; ++i) {
    task.AwaitRuns(i);
    EXPECT_THAT(Run([] { return absl::OkStatus(); }), IsOk());
  }
  task.AwaitRuns(3);
  worker_.SetIdleTask(nullptr);
  const int runs = task.runs();
  EXPECT_THAT(Run([] { return absl::OkStatus(); }), IsOk());
  EXPECT_EQ(task.runs(), runs);
}

TEST_F(DeviceWorkerTest, SleepsIfItsIdleTaskHasNothingToDo) {
  CountingTask task;
  task.HaveNothingToDo();
  worker_.SetIdleTask(&task);
  task.AwaitRuns(0);
  EXPECT_THAT(Run([] { return absl::OkStatus(); }), IsOk());
  task.AwaitRuns(1);
  const int runs = task.runs();
  worker_.Wake();
  task.AwaitRuns(runs);
  worker_.SetIdleTask(nullptr);
}

TEST_F(DeviceWorkerTest, HasNoTimeForItsIdleTaskIfWorkIsLong) {
  TestClock clock;
  DeviceWorker worker(c10::Device(c10::DeviceType::CPU), /*threads=*/1, {},
                      clock);
  const auto run = [&](absl::Duration cost) {
    EXPECT_THAT(BlockOn(worker.Run({},
                                   [&clock, cost] {
                                     clock.Advance(cost);
                                     return absl::OkStatus();
                                   })),
                IsOk());
  };
  run(absl::Seconds(1));
  CountingTask task;
  worker.SetIdleTask(&task);
  run(absl::Seconds(1));
  run(absl::Seconds(1));
  EXPECT_EQ(task.runs(), 0);
  for (int i = 0; i < 1000 && task.runs() == 0; ++i) run(absl::Microseconds(1));
  task.AwaitRuns(0);
  worker.SetIdleTask(nullptr);
}

}  // namespace
}  // namespace backboned
