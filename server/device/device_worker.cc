#include "server/device/device_worker.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/errors.h"
#include "server/limits/catching.h"

namespace backboned {
namespace {

// The interval at which a waiting call checks that its client is there.
constexpr absl::Duration kCancelPoll = absl::Milliseconds(20);

// Work that waited for less than this starts without a check that its caller is
// still there, which takes tens of microseconds of the device's time.
constexpr absl::Duration kFreshFor = absl::Milliseconds(1);

// Longer than brief work takes; longer work wastes this much of a core.
constexpr std::chrono::microseconds kMaxSpin{200};

// The time until a retry after the queue was full: half of the backlog, within
// these bounds.
constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(100);
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(10);

absl::Status Cancelled() {
  return absl::CancelledError("the client cancelled the call");
}

absl::Status Expired() {
  return absl::DeadlineExceededError(
      "the deadline passed before the device was free");
}

// Tells the processor that this thread spins.
void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

}  // namespace

// Shared by the caller, which waits in Wait, and the worker, which refers to
// the request and the work until `finished`.
struct DeviceWorker::Item {
  Item(const Request& asks, const Work* plain, BatchWork* batched,
       int64_t turn_samples = 1)
      : request(asks),
        work(plain),
        batch_work(batched),
        samples(turn_samples) {}

  const Request& request;
  const Work* work;  // Null if `batch_work` is set.
  BatchWork* batch_work;
  int64_t samples;  // Of the turn that waits or runs.
  absl::Time submitted = {};
  uint64_t id = 0;
  bool started = false;  // Set without a signal: the caller need not wake up.
  // Another turn has run.
  bool continues = false;
  // Then `status` is final, even if no turn ran. Written with the mutex.
  std::atomic<bool> finished = false;
  absl::Status status = {};
  Times times = {};
  MonotonicCondVar done = {};  // Signalled when `finished` becomes true.
};

// Runs a batch, and sets each item's status.
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
  return Attend(std::make_shared<Item>(request, &work, nullptr));
}

absl::StatusOr<DeviceWorker::Times> DeviceWorker::RunTogether(
    const Request& request, BatchWork& work) {
  const int64_t samples = work.NextSamples();
  if (samples == 0) return Times{};
  return Attend(std::make_shared<Item>(request, nullptr, &work, samples));
}

// Submits an item and waits for its end. Throws nothing: the worker refers to
// the caller's objects.
absl::StatusOr<DeviceWorker::Times> DeviceWorker::Attend(
    const std::shared_ptr<Item>& item) noexcept {
  absl::MutexLock lock(&mutex_);
  const bool idle = IsIdle();
  absl::Status status = Submit(item);
  if (!status.ok()) return status;
  if (idle && item->request.brief) Spin(*item);
  status = Wait(*item);
  if (!status.ok()) return status;
  return item->times;
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
                 "the server is shutting down");
  }
  const absl::Status queued = Enqueue(item);
  if (!queued.ok()) return QueueFull(queued, item->request);
  changed_.SignalAll();
  return absl::OkStatus();
}

// Puts an item's next turn into the queue.
absl::Status DeviceWorker::Enqueue(const std::shared_ptr<Item>& item) {
  const Request& request = item->request;
  item->id = next_id_++;
  item->submitted = clock_.Now();
  items_[item->id] = item;
  absl::Status queued = scheduler_.Submit(
      {.id = item->id,
       .flow = {request.principal, request.run},
       .lane = request.lane,
       .deadline = request.deadline,
       .merge_key = item->batch_work != nullptr ? request.merge_key : 0,
       .samples = item->samples,
       .continues = item->continues},
      item->submitted);
  if (!queued.ok()) items_.erase(item->id);
  return queued;
}

bool DeviceWorker::IsIdle() const {
  return scheduler_.queued() == 0 && scheduler_.running() == 0;
}

// Spins for a short while until the item has finished, without the mutex.
void DeviceWorker::Spin(const Item& item) {
  static const bool has_cores = std::thread::hardware_concurrency() > 1;
  if (!has_cores) return;
  mutex_.Unlock();
  const auto end = std::chrono::steady_clock::now() + kMaxSpin;
  while (!item.finished && std::chrono::steady_clock::now() < end) {
    for (int i = 0; i < 16; ++i) Relax();
  }
  mutex_.Lock();
}

absl::Status DeviceWorker::Wait(Item& item) {
  while (!item.finished) {
    item.done.WaitWithTimeout(&mutex_, kCancelPoll);
    if (item.finished || item.started) continue;
    const absl::Status wanted = CheckWanted(item);
    if (wanted.ok() || !scheduler_.Cancel(item.id)) continue;
    items_.erase(item.id);
    return wanted;
  }
  return item.status;
}

// Returns an error if the item's caller no longer waits. Unlocks the mutex
// meanwhile, since the check takes time.
absl::Status DeviceWorker::CheckWanted(const Item& item) {
  mutex_.Unlock();
  const absl::Status status = RunCatching([&item] {
    return item.request.cancelled() ? Cancelled() : absl::OkStatus();
  });
  mutex_.Lock();
  if (!status.ok()) return status;
  return clock_.Now() < item.request.deadline ? absl::OkStatus() : Expired();
}

// Returns the error of a full queue, in terms of the server's options.
absl::Status DeviceWorker::QueueFull(const absl::Status& refused,
                                     const Request& request) const {
  const FlowName flow = {request.principal, request.run};
  Limit limit = {.name = "max-queued",
                 .value = scheduling_.max_queued,
                 .requested = scheduler_.queued() + 1,
                 .retry_delay = std::clamp(scheduler_.Backlog() / 2,
                                           kMinRetryDelay, kMaxRetryDelay)};
  if (limit.requested > limit.value) {
    // The limit of all.
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

void DeviceWorker::Pump() noexcept {
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
    Count(next, items);
    cost = RunWanted(items);
  }
  Items ended;
  for (const auto& item : all) {
    if (!GoOn(item)) ended.push_back(item);
  }
  scheduler_.Done(next.run.front(), cost, clock_.Now());
  for (const auto& item : ended) item->finished = true;
  // Without the mutex, which the callers would block on as they wake up.
  mutex_.Unlock();
  for (const auto& item : ended) item->done.SignalAll();
  mutex_.Lock();
}

// Returns the items whose callers still wait. The status of the others says why
// they do not run, and they pay nothing.
DeviceWorker::Items DeviceWorker::WithoutAbandoned(const Items& items) {
  Items wanted;
  for (const auto& item : items) {
    const bool is_fresh = clock_.Now() - item->submitted < kFreshFor;
    if (!is_fresh) item->status = CheckWanted(*item);
    if (item->status.ok()) {
      wanted.push_back(item);
    } else {
      scheduler_.Abandon(items.front()->id, item->id);
    }
  }
  return wanted;
}

// Runs `items`, and returns the time that took.
absl::Duration DeviceWorker::RunWanted(const Items& items) {
  for (const auto& item : items) item->started = true;
  mutex_.Unlock();
  const absl::Time begin = clock_.Now();
  RunAll(items);
  const absl::Duration cost = clock_.Now() - begin;
  mutex_.Lock();
  for (const auto& item : items) {
    if (!item->continues) item->times.queue = begin - item->submitted;
    item->times.compute += cost;
  }
  return cost;
}

// Queues the next turn of an item, if there is one, and returns whether there
// is.
bool DeviceWorker::GoOn(const std::shared_ptr<Item>& item) {
  if (!item->status.ok() || item->batch_work == nullptr) return false;
  item->samples = item->batch_work->NextSamples();
  if (item->samples == 0) return false;
  item->started = false;
  item->continues = true;
  item->status = Enqueue(item);
  return item->status.ok();
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
    item->status = Expired();
    item->finished = true;
    item->done.SignalAll();
  }
}

}  // namespace backboned
