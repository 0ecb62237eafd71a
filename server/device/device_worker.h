// Runs all LibTorch calls of a device on one thread.

#ifndef BACKBONED_SERVER_DEVICE_DEVICE_WORKER_H_
#define BACKBONED_SERVER_DEVICE_DEVICE_WORKER_H_

#include <c10/core/Device.h>

#include <array>
#include <atomic>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "server/device/graph_cache.h"
#include "server/device/precision.h"
#include "server/limits/continuation.h"
#include "server/limits/memory_account.h"
#include "server/scheduler/scheduler.h"

namespace backboned {

// Adds up how long a device works for somebody. Thread-safe.
class WorkMeter {
 public:
  void Add(absl::Duration time) { ns_ += absl::ToInt64Nanoseconds(time); }
  absl::Duration time() const { return absl::Nanoseconds(ns_.load()); }

 private:
  std::atomic<int64_t> ns_ = 0;
};

// Work of one or more turns. In each turn it may run together with other work
// of the same merge key; between two turns other work has its turns.
class BatchWork {
 public:
  virtual ~BatchWork() = default;

  // Returns the samples of the next turn, at most a batch's maximum if they are
  // to run together with others; 0 if no work is left. Called before the first
  // turn, and after each turn that succeeded.
  virtual int64_t NextSamples() const = 0;

  // Runs the next turn of each of `batch`: this object, first, and others of
  // the same merge key. An exception becomes a status. If a batch fails,
  // nothing of it may have been done: if it had more than one, each is run
  // alone then; and one that ran out of a GPU's memory may run a second time.
  virtual absl::Status RunBatch(std::span<BatchWork* const> batch) = 0;
};

// Runs work on one device, one item after another, in a Scheduler's order;
// copies of a GPU's networks, which compute nothing, run beside it. No other
// thread computes with LibTorch's threads: OpenMP keeps a team of them for each
// thread that calls it, and two teams on the same cores are slower than one.
//
// Thread-safe. If malloc fails for its own bookkeeping, the process ends, as it
// does if malloc fails in gRPC; for tensors, RunCatching makes a status.
class DeviceWorker {
 public:
  // A piece of work. `Run` returns its status; an exception becomes a status.
  // It may run a second time if it ran out of a GPU's memory.
  using Work = std::function<absl::Status()>;

  // The caller of the work, and the conditions under which it is worth running.
  struct Request {
    std::string principal;
    // The name of one of the principal's runs, each of which has a share within
    // the principal's.
    std::string run = {};
    // Items of one lane run in the order of their submission. 0: no lane.
    uint64_t lane = 0;
    absl::Time deadline = absl::InfiniteFuture();  // By the worker's clock.
    // Work that waits as this is stopped never starts.
    std::stop_token stop = {};
    // Pays for the work's memory; for a batch, the account of the item with
    // most samples pays. Null: nobody pays.
    std::shared_ptr<MemoryAccount> account = nullptr;
    // Gets the time that the device works for it, also if that fails: of a
    // batch its part by samples. Copies take none. Null: nobody asks.
    std::shared_ptr<WorkMeter> meter = nullptr;
    // Goes on with work of which some was done: a full queue does not refuse
    // it.
    bool continues = false;
    // BatchWork of equal keys may run together. 0: runs alone.
    uint64_t merge_key = 0;
    // Of all that may run together.
    Precision precision = Precision::kDefault;
  };

  // The task of a worker that has no work.
  class IdleTask {
   public:
    // Does something, for at most so long, or until Interrupt. Returns false at
    // once if there is nothing to do: the worker sleeps then.
    virtual bool Run(absl::Duration at_most) = 0;

    // Ends a Run that is under way, soon. Thread-safe.
    virtual void Interrupt() = 0;

   protected:
    ~IdleTask() = default;
  };

  // Counts of the batches of BatchWork, by the reason why they left the queue.
  struct BatchFigures {
    // By BatchReason.
    std::array<int64_t, 5> batches = {};
    // The items that ran together with others.
    int64_t merged_items = 0;
    // The samples of all batches.
    int64_t samples = 0;
    // The batches by size: of 1 sample, of 2, of 3 or 4, of 5 to 8, and so on;
    // the last ones of more than 64.
    std::array<int64_t, 8> sizes = {};
  };

  // The times of an item.
  struct Times {
    absl::Duration queue;    // From submission to the start.
    absl::Duration compute;  // On the worker.
  };

  // Starts a worker for `device` with `threads` intra-operator threads (CPU; 0
  // stands for LibTorch's own choice), and one for copies. `clock` must outlive
  // it.
  DeviceWorker(c10::Device device, int threads, SchedulerOptions scheduling,
               const Clock& clock = MonotonicClock());

  // Starts a worker for chores of the server's own: on the CPU, with one
  // thread. `clock` must outlive it.
  explicit DeviceWorker(SchedulerOptions scheduling,
                        const Clock& clock = MonotonicClock());

  // Ends the thread after all submitted work has run.
  ~DeviceWorker();

  DeviceWorker(const DeviceWorker&) = delete;
  DeviceWorker& operator=(const DeviceWorker&) = delete;

  // Gives the times of work, or the error that ended it, to the coroutine that
  // awaits it. That goes on on the worker's thread, or where the work was given
  // up: by the thread that stops it.
  class Running;

  // Runs `work` on the worker's thread. Refers to both arguments until then.
  //
  // Gives kDeadlineExceeded or kCancelled if the work did not start by its
  // deadline or before it was stopped: it never starts then. Work that has
  // started is waited for. Gives kResourceExhausted if too many items wait or
  // memory ran out, kInternal if LibTorch threw.
  Running Run(const Request& request, const Work& work);

  // Runs `work` like Run, but in turns, each together with waiting work of the
  // request's merge key. Only the next turn waits in the queue, and only the
  // first one can be refused. After an error, or once the caller has gone,
  // there are no further turns. The times: until the start of the first turn,
  // and of all turns, which are those of the whole batches.
  Running RunTogether(const Request& request, BatchWork& work);

  // From now on the worker runs `task` while it has no work, as long as recent
  // work was brief. Null: none, and the former one does not run any more.
  void SetIdleTask(IdleTask* task);

  // Lets a worker that sleeps look at its idle task.
  void Wake();

  // From now on a GPU's work may record CUDA graphs, which take at most
  // `max_bytes` of its memory. Call this once, before any work;
  // GraphCache::Load was called.
  void RecordGraphs(int64_t max_bytes);

  // For work of this worker: its graphs; null: it may record none.
  GraphCache* graphs() { return graphs_.get(); }

  // Calls `callback` on the thread of work, or of a copy, that runs out of a
  // GPU's memory. It returns whether it freed some: that runs once more then.
  void OnOutOfMemory(const std::function<bool()>& callback);

  // Calls `callback` on the worker's thread, or on that of its copies, when the
  // device is lost: it has failed for good, and so does all work from then on,
  // with kUnavailable (kDeviceLost). The callback may not call the worker.
  void OnLost(const std::function<void()>& callback);
  bool is_lost() const;

  // Counts since the start.
  BatchFigures batch_figures() const;

  // True if nothing waits or runs, and no copy does.
  bool is_idle() const;

  // The time that the device has worked since the start, without its copies.
  absl::Duration busy() const;

  // The part of that time that each principal has paid for: see Scheduler.
  std::map<std::string, absl::Duration> paid() const;

  // The number of waiting items, and their duration as estimated by recent
  // costs.
  int64_t queued() const;
  absl::Duration backlog() const;

  // The number of items that would run before one that `flow` submitted now,
  // and their estimated duration.
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

  // The worker's intra-operator threads.
  int threads() const { return threads_; }

  // The worker of a GPU's copies from and to the host, which it makes in a
  // stream of its own, beside the work of this one. On a CPU this one.
  DeviceWorker& copies() { return copies_ == nullptr ? *this : *copies_; }

 private:
  enum class Kind { kComputes, kCopies, kChores };
  DeviceWorker(Kind kind, c10::Device device, int threads,
               SchedulerOptions scheduling, const Clock& clock);

  struct Item;
  using Items = std::vector<std::shared_ptr<Item>>;

  bool Start(const std::shared_ptr<Item>& item);
  absl::Status Submit(const std::shared_ptr<Item>& item)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Enqueue(const std::shared_ptr<Item>& item)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveUp(const Item& item);
  void Pump() noexcept;
  void Idle(absl::Duration at_most) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Change() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunBatch(const Scheduler::Dispatch& next)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Items WithoutAbandoned(const Items& items)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration RunWanted(const Items& items)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunAll(const Items& items);
  absl::Status RunAlone(const Item& item);
  void Meter(const Items& items, absl::Duration cost) const;
  void Lose(const absl::Status& failure) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool GoOn(const std::shared_ptr<Item>& item)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Count(const Scheduler::Dispatch& next, const Items& items)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(const Items& items) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Items TakeExpired(const std::vector<uint64_t>& ids)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<Item> Take(uint64_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status QueueFull(const absl::Status& refused,
                         const Request& request) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const Kind kind_;
  const c10::Device device_;
  int threads_;
  const SchedulerOptions scheduling_;
  const Clock& clock_;

  mutable absl::Mutex mutex_;
  MonotonicCondVar changed_;
  // Counts what the worker is to look at.
  uint64_t changes_ ABSL_GUARDED_BY(mutex_) = 0;
  Scheduler scheduler_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<uint64_t, std::shared_ptr<Item>> items_
      ABSL_GUARDED_BY(mutex_);  // Items that did not start.
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  absl::Duration busy_ ABSL_GUARDED_BY(mutex_);
  BatchFigures batch_figures_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::function<bool()> on_out_of_memory_ ABSL_GUARDED_BY(mutex_);
  absl::Status lost_ ABSL_GUARDED_BY(mutex_);  // The status of its work.
  std::function<void()> on_lost_ ABSL_GUARDED_BY(mutex_);
  IdleTask* idle_task_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool idles_ ABSL_GUARDED_BY(mutex_) = false;  // The task runs.

  std::unique_ptr<GraphCache> graphs_;
  std::unique_ptr<DeviceWorker> copies_;  // Null: there is no other one.
  std::thread thread_;                    // Last: it uses all of the above.
};

class DeviceWorker::Running {
 public:
  bool await_ready() const { return item_ == nullptr; }
  bool await_suspend(std::coroutine_handle<> suspended) noexcept;
  absl::StatusOr<Times> await_resume();

 private:
  friend DeviceWorker;

  // Null: no work is left.
  Running(DeviceWorker& worker, std::shared_ptr<Item> item)
      : worker_(&worker), item_(std::move(item)) {}

  DeviceWorker* const worker_;
  const std::shared_ptr<Item> item_;
  // Last: its end waits for a call that has begun on another thread.
  std::optional<std::stop_callback<std::function<void()>>> on_stop_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_DEVICE_WORKER_H_
