#include "server/device_worker.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "backbones/errors.h"

namespace backboned {
namespace {

// How often a waiting call looks whether its client is still there.
constexpr absl::Duration kCancelPoll = absl::Milliseconds(20);

// Work that waited for less starts without asking whether its caller is still
// there, which takes tens of microseconds of the device's time.
constexpr absl::Duration kFreshFor = absl::Milliseconds(1);

// Longer than brief work takes; so much of a core is lost if it takes longer.
constexpr std::chrono::microseconds kMaxSpin{200};

// When to try again after the queue was full: once half of it has run, within
// these bounds.
constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(100);
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(10);

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

// The one place where exceptions of LibTorch end.
absl::Status RunCatching(const std::function<absl::Status()>& work) {
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

// Shared by the caller, who waits in Wait, and the worker, which refers to the
// request and the work until `finished`.
struct DeviceWorker::Item {
  const Request& request;
  const Work* work;  // One of the two.
  BatchWork* batch_work;
  const int64_t samples;
  const absl::Time submitted;
  uint64_t id = 0;
  bool started = false;  // Without a signal: the caller need not wake for it.
  // `status` says how, also if it never started. Written with the mutex.
  std::atomic<bool> finished = false;
  absl::Status status = {};
  Times times = {};
  absl::CondVar done = {};  // `finished` became true.
};

// Runs what is to run together, and sets each one's status.
void DeviceWorker::RunAll(const Items& items) {
  const auto& largest = *std::ranges::max_element(
      items, {}, [](const auto& item) { return item->samples; });
  const ScopedAccount scope(largest->request.account);
  if (items[0]->work != nullptr) {
    items[0]->status = RunCatching(*items[0]->work);
    return;
  }
  std::vector<BatchWork*> batch;
  for (const auto& item : items) batch.push_back(item->batch_work);
  const absl::Status together =
      RunCatching([&] { return batch[0]->RunBatch(batch); });
  for (const auto& item : items) {
    item->status = together;
    if (together.ok() || items.size() == 1) continue;
    const ScopedAccount own(item->request.account);
    BatchWork* const alone = item->batch_work;
    item->status =
        RunCatching([&] { return alone->RunBatch(std::span(&alone, 1)); });
  }
}

DeviceWorker::DeviceWorker(c10::Device device, int threads,
                           SchedulerOptions scheduling, const Clock& clock)
    : device_(device),
      threads_(threads),
      scheduling_(std::move(scheduling)),
      clock_(clock),
      scheduler_(scheduling_) {
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
  const auto item =
      std::make_shared<Item>(request, &work, nullptr, 1, clock_.Now());
  absl::MutexLock lock(&mutex_);
  const bool idle = IsIdle();
  absl::Status submitted = Submit(item);
  if (!submitted.ok()) return submitted;
  if (idle && request.brief) Spin(*item);
  absl::Status status = Wait(*item);
  if (!status.ok()) return status;
  return item->times;
}

absl::StatusOr<DeviceWorker::Times> DeviceWorker::RunTogether(
    const Request& request, std::span<const BatchItem> batch_items) {
  const absl::Time now = clock_.Now();
  Items items;
  for (const auto& [work, samples] : batch_items) {
    items.push_back(
        std::make_shared<Item>(request, nullptr, work, samples, now));
  }
  absl::MutexLock lock(&mutex_);
  absl::Status status;
  const bool idle = IsIdle();
  size_t submitted = 0;
  while (submitted < items.size() && status.ok()) {
    status = Submit(items[submitted]);
    if (status.ok()) ++submitted;
  }
  items.resize(submitted);
  if (idle && request.brief && items.size() == 1) Spin(*items[0]);
  Times times = {.queue = absl::InfiniteDuration()};
  for (const auto& item : items) {
    // After an error the rest is not worth running.
    if (!status.ok() && scheduler_.Cancel(item->id)) {
      items_.erase(item->id);
      continue;
    }
    status.Update(Wait(*item));
    times.queue = std::min(times.queue, item->times.queue);
    times.compute += item->times.compute;
  }
  if (!status.ok()) return status;
  return times;
}

DeviceWorker::BatchFigures DeviceWorker::batch_figures() const {
  absl::MutexLock lock(&mutex_);
  return batch_figures_;
}

int64_t DeviceWorker::queued() const {
  absl::MutexLock lock(&mutex_);
  return scheduler_.queued();
}

absl::Duration DeviceWorker::backlog() const {
  absl::MutexLock lock(&mutex_);
  return scheduler_.Backlog();
}

DeviceWorker::Place DeviceWorker::PlaceOf(const FlowName& flow) const {
  absl::MutexLock lock(&mutex_);
  const int64_t ahead = scheduler_.Ahead(flow);
  return {.ahead = ahead,
          .wait = scheduler_.mean_cost() *
                  static_cast<double>(ahead + scheduler_.running())};
}

absl::Status DeviceWorker::Submit(const std::shared_ptr<Item>& item) {
  if (ending_) {
    return Error(absl::StatusCode::kUnavailable, Reason::kDraining,
                 "the device's worker has ended");
  }
  const Request& request = item->request;
  item->id = next_id_++;
  items_[item->id] = item;
  const absl::Status submitted = scheduler_.Submit(
      {.id = item->id,
       .flow = {request.principal, request.run},
       .lane = request.lane,
       .deadline = request.deadline,
       .merge_key = item->batch_work != nullptr ? request.merge_key : 0,
       .samples = item->samples},
      item->submitted);
  if (!submitted.ok()) {
    items_.erase(item->id);
    return QueueFull(submitted, request);
  }
  changed_.SignalAll();
  return absl::OkStatus();
}

bool DeviceWorker::IsIdle() const {
  return scheduler_.queued() == 0 && scheduler_.running() == 0;
}

// Looks for a short while whether the item has finished, without the mutex.
void DeviceWorker::Spin(const Item& item) {
  static const bool has_cores = std::thread::hardware_concurrency() > 1;
  if (!has_cores) return;
  mutex_.Unlock();
  const auto end = std::chrono::steady_clock::now() + kMaxSpin;
  while (!item.finished && std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 16; ++i) _mm_pause();
  }
  mutex_.Lock();
}

absl::Status DeviceWorker::Wait(Item& item) {
  const absl::Status cancelled = WaitForStart(item);
  if (!cancelled.ok() && scheduler_.Cancel(item.id)) {
    items_.erase(item.id);
    return cancelled;
  }
  while (!item.finished) item.done.Wait(&mutex_);
  return item.status;
}

// A full queue, in the words of the server's options.
absl::Status DeviceWorker::QueueFull(const absl::Status& refused,
                                     const Request& request) const {
  const FlowName flow = {request.principal, request.run};
  Limit limit = {.name = "max-queued",
                 .value = scheduling_.max_queued,
                 .requested = scheduler_.queued() + 1,
                 .retry_delay = std::clamp(scheduler_.Backlog() / 2,
                                           kMinRetryDelay, kMaxRetryDelay)};
  if (limit.requested > limit.value) {
    // All together.
  } else if (scheduler_.queued_of(flow.principal) >=
             scheduler_.max_queued_of(flow.principal)) {
    limit.scope = LimitScope::kPrincipal;
    limit.value = scheduler_.max_queued_of(flow.principal);
    limit.requested = scheduler_.queued_of(flow.principal) + 1;
  } else {
    limit.name = "max-queued-by-run";
    limit.scope = LimitScope::kRun;
    limit.value = scheduling_.max_queued_by_flow;
    limit.requested = scheduler_.queued(flow) + 1;
  }
  return LimitReached(limit,
                      {refused.message().data(), refused.message().size()});
}

absl::Status DeviceWorker::WaitForStart(Item& item) {
  while (!item.started && !item.finished) {
    item.done.WaitWithTimeout(&mutex_, kCancelPoll);
    if (item.started || item.finished) break;
    mutex_.Unlock();  // It takes some time to ask.
    const bool cancelled = item.request.cancelled();
    mutex_.Lock();
    if (cancelled) return Cancelled();
    if (clock_.Now() >= item.request.deadline) {
      return absl::DeadlineExceededError(
          "the deadline passed before the device was free");
    }
  }
  return absl::OkStatus();
}

void DeviceWorker::Pump() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    const Scheduler::Dispatch next = scheduler_.Next(clock_.Now());
    TakeExpired(next.expired);
    if (!next.run.empty()) {
      RunBatch(next);
    } else if (ending_ && scheduler_.queued() == 0) {
      return;
    } else {
      changed_.WaitWithTimeout(&mutex_, next.wake - clock_.Now());
    }
  }
}

void DeviceWorker::RunBatch(const Scheduler::Dispatch& next) {
  Items all;
  for (const uint64_t id : next.run) all.push_back(Take(id));
  const Items items = WithoutAbandoned(all);
  absl::Duration cost;
  if (!items.empty()) {
    for (const auto& item : items) item->started = true;
    Count(next, items);
    mutex_.Unlock();
    const absl::Time begin = clock_.Now();
    RunAll(items);
    cost = clock_.Now() - begin;
    for (const auto& item : items) {
      item->times = {.queue = begin - item->submitted, .compute = cost};
    }
    mutex_.Lock();
  }
  scheduler_.Done(next.run.front(), cost, clock_.Now());
  for (const auto& item : all) item->finished = true;
  // Without the mutex, which the callers would wake up to wait for.
  mutex_.Unlock();
  for (const auto& item : all) item->done.Signal();
  mutex_.Lock();
}

// Those of `items` that somebody still waits for; the others' status says that
// they were cancelled. Unlocks the mutex meanwhile, since it takes time to ask.
DeviceWorker::Items DeviceWorker::WithoutAbandoned(const Items& items) {
  Items wanted;
  mutex_.Unlock();
  for (const auto& item : items) {
    const bool is_fresh = clock_.Now() - item->submitted < kFreshFor;
    if (is_fresh || !item->request.cancelled()) {
      wanted.push_back(item);
    } else {
      item->status = Cancelled();
    }
  }
  mutex_.Lock();
  return wanted;
}

void DeviceWorker::Count(const Scheduler::Dispatch& next, const Items& items) {
  ++batch_figures_.batches[static_cast<size_t>(next.reason)];
  if (next.reason == BatchReason::kAlone) return;
  if (items.size() > 1) {
    batch_figures_.merged_items += static_cast<int64_t>(items.size());
  }
  for (const auto& item : items) {
    batch_figures_.samples += item->samples;
  }
}

std::shared_ptr<DeviceWorker::Item> DeviceWorker::Take(uint64_t id) {
  return std::move(items_.extract(id).mapped());
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
