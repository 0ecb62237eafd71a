#include "server/rpc/transport/completion_thread.h"

#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <span>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/task.h"
#include "server/device/device_worker.h"
#include "server/rpc/transport/completion.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_clock.h"

namespace backboned::rpc {
namespace {

constexpr absl::Duration kMaxDelay = absl::Milliseconds(1);

class CompletionThreadTest : public ::testing::Test {
 protected:
  CompletionThreadTest() {
    grpc::ServerBuilder builder;
    auto queue = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    thread_.emplace(std::move(queue), worker_);
  }
  ~CompletionThreadTest() override { server_->Shutdown(); }

  // Returns which thread handles what happens now.
  std::thread::id Handler() {
    std::thread::id id;
    absl::Notification handled;
    Post(thread_->queue(), [&] {
      id = std::this_thread::get_id();
      handled.Notify();
    });
    handled.WaitForNotification();
    return id;
  }

  // Runs work that takes so long on the worker, and returns its thread.
  std::thread::id Work(absl::Duration cost) {
    std::thread::id id;
    const DeviceWorker::Work work = [&] {
      id = std::this_thread::get_id();
      clock_.Advance(cost);
      return absl::OkStatus();
    };
    EXPECT_THAT(BlockOn(worker_.Run({}, work)), IsOk());
    return id;
  }

  TestClock clock_;
  DeviceWorker worker_{c10::Device(c10::DeviceType::CPU),
                       1,
                       {.max_batch = 8, .max_delay = kMaxDelay},
                       clock_};
  std::unique_ptr<grpc::Server> server_;
  std::optional<CompletionThread> thread_;
};

TEST_F(CompletionThreadTest, TheIdleWorkerLeads) {
  const std::thread::id worker = Work(absl::ZeroDuration());
  while (Handler() != worker) {
  }
  // Work of another thread does not wait for what the queue brings next.
  EXPECT_EQ(Work(absl::ZeroDuration()), worker);
}

TEST_F(CompletionThreadTest, AnotherThreadLeadsWhileTheWorkerWorks) {
  absl::Notification started;
  absl::Notification released;
  std::thread::id worker;
  std::thread call([&] {
    const DeviceWorker::Work work = [&] {
      worker = std::this_thread::get_id();
      started.Notify();
      released.WaitForNotification();
      return absl::OkStatus();
    };
    EXPECT_THAT(BlockOn(worker_.Run({}, work)), IsOk());
  });
  started.WaitForNotification();
  for (int i = 0; i < 3; ++i) EXPECT_NE(Handler(), worker);
  released.Notify();
  call.join();
  while (Handler() != worker) {  // It takes the lead back.
  }
}

TEST_F(CompletionThreadTest, AWorkerOfLongWorkNeverLeads) {
  std::thread::id worker;
  for (int i = 0; i < 3; ++i) worker = Work(absl::Seconds(1));
  Handler();  // The worker may have led since before.
  for (int i = 0; i < 10; ++i) {
    Work(absl::Seconds(1));
    EXPECT_NE(Handler(), worker);
  }
}

class OneSample final : public BatchWork {
 public:
  int64_t NextSamples() const override { return done_ ? 0 : 1; }
  absl::Status RunBatch(std::span<BatchWork* const> /*batch*/) override {
    done_ = true;
    return absl::OkStatus();
  }

 private:
  bool done_ = false;
};

TEST_F(CompletionThreadTest, AnotherThreadLeadsWhileABatchWaitsForOthers) {
  const std::thread::id worker = Work(absl::ZeroDuration());
  std::thread call([&] {
    OneSample work;
    EXPECT_THAT(BlockOn(worker_.RunTogether({.merge_key = 1}, work)), IsOk());
  });
  while (worker_.queued() == 0) std::this_thread::yield();
  Handler();  // The worker may have led since before.
  for (int i = 0; i < 3; ++i) EXPECT_NE(Handler(), worker);
  clock_.Advance(kMaxDelay);
  worker_.Wake();
  call.join();
}

TEST_F(CompletionThreadTest, EndsWhoeverLeads) {
  const std::thread::id worker = Work(absl::ZeroDuration());
  while (Handler() != worker) {
  }
  server_->Shutdown();
  thread_.reset();
  EXPECT_EQ(Work(absl::ZeroDuration()), worker);
}

}  // namespace
}  // namespace backboned::rpc
