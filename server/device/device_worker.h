// The one thread that makes a device's LibTorch calls.

#ifndef BACKBONED_SERVER_DEVICE_DEVICE_WORKER_H_
#define BACKBONED_SERVER_DEVICE_DEVICE_WORKER_H_

#include <c10/core/Device.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "server/limits/memory_account.h"
#include "server/scheduler/scheduler.h"

namespace backboned {

// Work of one or more turns, in each of which it may run together with other
// work of its merge key. Between two turns others have theirs.
class BatchWork {
 public:
  virtual ~BatchWork() = default;

  // Returns the samples of its next turn, at most as many as a batch may have
  // where they are to run together; 0 once there is nothing left to do. Asked
  // before its first turn, and after each that ended well.
  virtual int64_t NextSamples() const = 0;

  // Runs the next turn of all of `batch`, which are of one merge key, this one
  // first. What it throws becomes a status. If it fails with more than one,
  // nothing of it may have been done: each is then run alone.
  virtual absl::Status RunBatch(std::span<BatchWork* const> batch) = 0;
};

// Runs work on one device, one item after another, in the order that a
// Scheduler gives. Nothing else in the process computes with LibTorch's
// threads: OpenMP keeps a team of them for each thread that calls it, and two
// teams on the same cores are slower than one.
//
// Thread-safe. Where malloc fails for its own bookkeeping, the process ends, as
// it does where it fails in gRPC; for tensors, RunCatching has a status.
class DeviceWorker {
 public:
  // A piece of work. What it returns, `Run` returns; what it throws becomes a
  // status.
  using Work = std::function<absl::Status()>;

  // Who asks, and until when it is worth running.
  struct Request {
    std::string principal;
    // Which of the principal's runs: it gets a share of its own in the
    // principal's.
    std::string run = {};
    // Items of one lane run in the order of their submission. 0: no lane.
    uint64_t lane = 0;
    absl::Time deadline = absl::InfiniteFuture();  // By the worker's clock.
    // Polled while the work waits; once true, it will not be started. So if it
    // throws, which becomes a status.
    std::function<bool()> cancelled = [] { return false; };
    // Pays for the memory that the work takes; of what runs together, that of
    // the one with most samples does. Null: nobody.
    std::shared_ptr<MemoryAccount> account = nullptr;
    // Of BatchWork: what may run together has equal keys. 0: alone.
    uint64_t merge_key = 0;
    // Takes less time than falling asleep and waking up: the caller spins
    // shortly, if the device is free.
    bool brief = false;
  };

  // Batches of BatchWork, by why they left.
  struct BatchFigures {
    // By BatchReason.
    std::array<int64_t, 5> batches = {};
    // Items in them that ran together with others.
    int64_t merged_items = 0;
    // Samples of all of them.
    int64_t samples = 0;
  };

  // Where the time of an item went.
  struct Times {
    absl::Duration queue;    // From submission until it began.
    absl::Duration compute;  // On the worker.
  };

  // Starts a worker for `device` with `threads` intra-operator threads (CPU; 0
  // stands for LibTorch's own choice). `clock` must outlive it.
  DeviceWorker(c10::Device device, int threads, SchedulerOptions scheduling,
               const Clock& clock = MonotonicClock());

  // Ends the thread once everything that was submitted has run.
  ~DeviceWorker();

  DeviceWorker(const DeviceWorker&) = delete;
  DeviceWorker& operator=(const DeviceWorker&) = delete;

  // Runs `work` on the worker's thread and waits for its end, so `work` may
  // refer to what the caller owns.
  //
  // Work that did not start by its deadline, or whose caller went away while it
  // waited for a millisecond or more, never starts: kDeadlineExceeded,
  // kCancelled. Work that started is waited for.
  // kResourceExhausted if too many items wait or memory ran out, kInternal if
  // LibTorch threw.
  absl::StatusOr<Times> Run(const Request& request, const Work& work);

  // Runs `work` as Run does, but in as many turns as it has, and each together
  // with what else waits of the request's merge key. Only the next turn waits
  // in the queue, and only the first one can be refused. After an error, or
  // once the caller has gone, there is no further turn. The times: until the
  // first turn began, and of all turns, those of the whole batches.
  absl::StatusOr<Times> RunTogether(const Request& request, BatchWork& work);

  // What ran together so far.
  BatchFigures batch_figures() const;

  // Items that wait now, and how long they will take by what items took of
  // late.
  int64_t queued() const;
  absl::Duration backlog() const;

  // How many of them would run before one that `flow` submitted now, and how
  // long that will take.
  struct Place {
    int64_t ahead = 0;
    absl::Duration wait;
  };
  Place PlaceOf(const FlowName& flow) const;

  const SchedulerOptions& scheduling() const { return scheduling_; }

  // Measures deadlines, costs and lifetimes.
  const Clock& clock() const { return clock_; }

  // The device that the work runs on.
  c10::Device device() const { return device_; }

  // Intra-operator threads of the worker.
  int threads() const { return threads_; }

 private:
  struct Item;
  using Items = std::vector<std::shared_ptr<Item>>;

  absl::StatusOr<Times> Attend(const std::shared_ptr<Item>& item) noexcept;
  absl::Status Submit(const std::shared_ptr<Item>& item)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Enqueue(const std::shared_ptr<Item>& item)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckWanted(const Item& item)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsIdle() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Spin(const Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Wait(Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Pump() noexcept;
  void RunBatch(const Scheduler::Dispatch& next)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Items WithoutAbandoned(const Items& items)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration RunWanted(const Items& items)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void RunAll(const Items& items);
  bool GoOn(const std::shared_ptr<Item>& item)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Count(const Scheduler::Dispatch& next, const Items& items)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeExpired(const std::vector<uint64_t>& ids)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Item> Take(uint64_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status QueueFull(const absl::Status& refused,
                         const Request& request) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const c10::Device device_;
  int threads_;
  const SchedulerOptions scheduling_;
  const Clock& clock_;

  mutable absl::Mutex mutex_;
  MonotonicCondVar changed_;  // An item came, or the worker is to end.
  Scheduler scheduler_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, std::shared_ptr<Item>> items_
      ABSL_GUARDED_BY(mutex_);  // Those that did not start.
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  BatchFigures batch_figures_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;  // Last: it uses all of the above.
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_DEVICE_WORKER_H_
