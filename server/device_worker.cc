#include "server/device_worker.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "backbones/errors.h"
#include "server/memory_account.h"

namespace backboned {
namespace {

// How often a waiting call looks whether its client is still there.
constexpr absl::Duration kCancelPoll = absl::Milliseconds(20);

// Work that waited for less starts without asking whether its caller is still
// there, which takes tens of microseconds of the device's time.
constexpr absl::Duration kFreshFor = absl::Milliseconds(1);

// When to try again after the queue was full.
constexpr absl::Duration kRetryDelay = absl::Milliseconds(100);

// The first line of what LibTorch says; the rest names its own sources.
std::string FirstLine(const std::string& text) {
  return text.substr(0, std::min(text.find('\n'), size_t{400}));
}

absl::Status OutOfMemory() {
  return Error(absl::StatusCode::kResourceExhausted, Reason::kOutOfMemory,
               "the device is out of memory");
}

absl::Status Cancelled() {
  return absl::CancelledError("the client cancelled the call");
}

// A full queue, in the words of the server's options.
absl::Status QueueFull(const absl::Status& refused, int64_t max_queued) {
  return LimitReached({.name = "max-queued",
                       .value = max_queued,
                       .requested = max_queued + 1,
                       .retry_delay = kRetryDelay},
                      {refused.message().data(), refused.message().size()});
}

// The one place where exceptions of LibTorch end.
absl::Status RunCatching(const DeviceWorker::Work& work) {
  try {
    return work();
  } catch (const OutOfMemoryBudget& error) {
    return error.status();
  } catch (const c10::OutOfMemoryError&) {
    return OutOfMemory();
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  } catch (const c10::Error& error) {
    return Error(absl::StatusCode::kInternal, Reason::kComputeFailed,
                 absl::StrCat("LibTorch failed: ",
                              FirstLine(error.what_without_backtrace())));
  } catch (const std::exception& error) {
    return Error(
        absl::StatusCode::kInternal, Reason::kComputeFailed,
        absl::StrCat("the computation failed: ", FirstLine(error.what())));
  }
}

}  // namespace

// Shared by the caller, who waits in Run, and the worker, which refers to the
// request and the work until `finished`.
struct DeviceWorker::Item {
  const Request& request;
  const Work& work;
  const absl::Time submitted;
  bool started = false;
  bool finished = false;  // `status` says how, also if it never started.
  absl::Status status;
  Times times;
  absl::CondVar done;  // `finished` became true.
};

DeviceWorker::DeviceWorker(c10::Device device, int threads, int64_t max_queued)
    : device_(device), threads_(threads), scheduler_(max_queued) {
  absl::Notification ready;
  thread_ = std::thread([this, &ready] {
    // OpenMP's thread count is a property of the calling thread.
    if (threads_ > 0) at::set_num_threads(threads_);
    threads_ = at::get_num_threads();
    ready.Notify();
    Pump();
  });
  ready.WaitForNotification();
}

DeviceWorker::~DeviceWorker() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

absl::StatusOr<DeviceWorker::Times> DeviceWorker::Run(const Request& request,
                                                      const Work& work) {
  absl::MutexLock lock(&mutex_);
  if (ending_) {
    return Error(absl::StatusCode::kUnavailable, Reason::kDraining,
                 "the device's worker has ended");
  }
  const absl::Time now = absl::Now();
  const uint64_t id = next_id_++;
  const auto item = std::make_shared<Item>(request, work, now);
  absl::Status submitted = scheduler_.Submit({.id = id,
                                              .principal = request.principal,
                                              .lane = request.lane,
                                              .deadline = request.deadline},
                                             now);
  if (!submitted.ok()) return QueueFull(submitted, scheduler_.max_queued());
  items_[id] = item;
  changed_.SignalAll();
  absl::Status cancelled = WaitForStart(*item);
  if (!cancelled.ok() && scheduler_.Cancel(id)) {
    items_.erase(id);
    return cancelled;
  }
  while (!item->finished) item->done.Wait(&mutex_);
  if (!item->status.ok()) return item->status;
  return item->times;
}

absl::Status DeviceWorker::WaitForStart(Item& item) {
  while (!item.started && !item.finished) {
    item.done.WaitWithTimeout(&mutex_, kCancelPoll);
    if (item.started || item.finished) break;
    if (item.request.cancelled()) return Cancelled();
    if (absl::Now() >= item.request.deadline) {
      return absl::DeadlineExceededError(
          "the deadline passed before the device was free");
    }
  }
  return absl::OkStatus();
}

void DeviceWorker::Pump() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    Scheduler::Dispatch next = scheduler_.Next(absl::Now());
    TakeExpired(next.expired);
    if (next.run.empty()) {
      if (ending_) return;
      changed_.Wait(&mutex_);
      continue;
    }
    for (uint64_t id : next.run) {
      const std::shared_ptr<Item> item = Take(id);
      if (Abandoned(*item)) {
        item->status = Cancelled();
      } else {
        item->started = true;  // No signal: the caller need not wake for it.
        mutex_.Unlock();
        RunItem(*item);
        mutex_.Lock();
      }
      scheduler_.Done(id, item->times.compute, absl::Now());
      item->finished = true;
      // Without the mutex, which the caller would wake up to wait for.
      mutex_.Unlock();
      item->done.Signal();
      mutex_.Lock();
    }
  }
}

std::shared_ptr<DeviceWorker::Item> DeviceWorker::Take(uint64_t id) {
  return std::move(items_.extract(id).mapped());
}

bool DeviceWorker::Abandoned(const Item& item) {
  return absl::Now() - item.submitted >= kFreshFor && item.request.cancelled();
}

void DeviceWorker::RunItem(Item& item) {
  const absl::Time begin = absl::Now();
  item.times.queue = begin - item.submitted;
  item.status = RunCatching(item.work);
  item.times.compute = absl::Now() - begin;
}

void DeviceWorker::TakeExpired(const std::vector<uint64_t>& ids) {
  for (uint64_t id : ids) {
    const std::shared_ptr<Item> item = Take(id);
    item->status = absl::DeadlineExceededError(
        "the deadline passed before the device was free");
    item->finished = true;
    item->done.Signal();
  }
}

}  // namespace backboned
