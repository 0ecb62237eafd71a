// Handles what ends in a server's completion queue.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_COMPLETION_THREAD_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_COMPLETION_THREAD_H_

#include <grpcpp/completion_queue.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/spin.h"
#include "server/device/device_worker.h"

namespace backboned::rpc {

// One thread at a time leads: it waits in the queue, and handles what comes. It
// is the worker of a device while that has no work, so that a call of one
// client wakes up one thread. Else it is a thread of this object's own: if the
// worker works for long, or if there is more to do than one thread does at
// once.
class CompletionThread final : private DeviceWorker::IdleTask {
 public:
  // `worker` must outlive this.
  CompletionThread(std::unique_ptr<grpc::ServerCompletionQueue> queue,
                   DeviceWorker& worker);

  // Waits until each user has left; the server must have been shut down.
  ~CompletionThread();

  CompletionThread(const CompletionThread&) = delete;
  CompletionThread& operator=(const CompletionThread&) = delete;

  grpc::ServerCompletionQueue& queue() { return *queue_; }

  // Notes that a coroutine uses the queue from now on, or no longer.
  void Enter();
  void Leave();

 private:
  bool Run(absl::Duration at_most) override;
  void Interrupt() override;
  void StandBy();
  bool Lead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsUnused() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return users_ == 0;
  }

  const std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  DeviceWorker& worker_;
  // The worker would lead if nobody did.
  std::atomic<bool> worker_would_ = false;
  std::atomic<bool> is_interrupted_ = false;  // The worker's lead.
  // Since when the worker leads without a wait.
  absl::Time stint_ = absl::InfiniteFuture();
  Spin spin_;  // The worker's.

  absl::Mutex mutex_;
  MonotonicCondVar changed_;
  int64_t users_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ends_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_led_ ABSL_GUARDED_BY(mutex_) = false;
  // The own thread does not watch.
  bool rests_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time left_ ABSL_GUARDED_BY(mutex_);  // When somebody left the lead.
  // Until then the own thread leads.
  absl::Time crowded_until_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::thread thread_;  // Last: it uses all of the above.
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_COMPLETION_THREAD_H_
