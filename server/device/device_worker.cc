#include "server/device/device_worker.h"

#include <ATen/Parallel.h>
#include <c10/core/AutogradState.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/errors.h"
#include "server/device/devices.h"
#include "server/limits/catching.h"

namespace backboned {
namespace {

// The time until a retry after the queue was full: half of the backlog, within
// these bounds.
constexpr absl::Duration kMinRetryDelay = absl::Milliseconds(100);
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(10);

// The mean cost of recent work, below which the worker has time for its idle
// task.
constexpr absl::Duration kBrief = absl::Milliseconds(1);

absl::Status Cancelled() {
  return absl::CancelledError("the client cancelled the call");
}

absl::Status Expired() {
  return absl::DeadlineExceededError(
      "the deadline passed before the device was free");
}

// Returns why work that waits need not start, or OK.
absl::Status CheckWanted(const DeviceWorker::Request& request, absl::Time now) {
  if (now >= request.deadline) return Expired();
  return request.stop.stop_requested() ? Cancelled() : absl::OkStatus();
}

}  // namespace

// Refers to the request and the work, which the waiting coroutine owns, until
// that goes on.
struct DeviceWorker::Item {
  Item(const Request& asks, const Work* plain, BatchWork* batched,
       int64_t turn_samples = 1)
      : request(asks),
        work(plain),
        batch_work(batched),
        samples(turn_samples),
        continues(asks.continues) {}

  const Request& request;
  const Work* work;  // Null if `batch_work` is set.
  BatchWork* batch_work;
  int64_t samples;  // Of the turn that waits or runs.
  absl::Time submitted = {};
  uint64_t id = 0;
  bool continues;            // Another turn has run.
  absl::Status status = {};  // Final once the coroutine goes on.
  Times times = {};
  std::optional<Continuation> waiting = {};
};

// Throws nothing: the worker refers to what the coroutine owns. That may go on,
// and end, before Start returns.
bool DeviceWorker::Running::await_suspend(
    std::coroutine_handle<> suspended) noexcept {
  item_->waiting.emplace(suspended);
  if (item_->request.stop.stop_possible()) {
    on_stop_.emplace(item_->request.stop, [this] { worker_->GiveUp(*item_); });
  }
  return worker_->Start(item_);
}

absl::StatusOr<DeviceWorker::Times> DeviceWorker::Running::await_resume() {
  if (item_ == nullptr) return Times{};
  if (!item_->status.ok()) return std::move(item_->status);
  return item_->times;
}

// Runs a batch, and sets each item's status.
void DeviceWorker::RunAll(const Items& items) {
  if (items.size() == 1) {
    items[0]->status = RunAlone(*items[0]);
    return;
  }
  const auto& largest = *std::ranges::max_element(
      items, {}, [](const auto& item) { return item->samples; });
  std::vector<BatchWork*> batch;
  for (const auto& item : items) batch.push_back(item->batch_work);
  absl::Status together;
  {
    const ScopedAccount scope(largest->request.account);
    together = RunCatching([&] { return batch[0]->RunBatch(batch); });
  }
  for (const auto& item : items) {
    item->status = together.ok() ? together : RunAlone(*item);
  }
}

absl::Status DeviceWorker::RunAlone(const Item& item) {
  const ScopedAccount scope(item.request.account);
  const auto run = [&item] {
    BatchWork* const batch = item.batch_work;
    return batch == nullptr ? (*item.work)()
                            : batch->RunBatch(std::span(&batch, 1));
  };
  const absl::Status first = RunCatching(run);
  if (ReasonOf(first) != Reason::kOutOfMemory || device_.is_cpu()) return first;
  std::function<bool()> free_some;
  {
    absl::MutexLock lock(&mutex_);
    free_some = on_out_of_memory_;
  }
  return RunCatching([&] {
    WaitFor(device_);
    bool freed = graphs_ != nullptr && graphs_->Clear();
    if (free_some) freed |= free_some();
    return freed ? run() : first;
  });
}

DeviceWorker::DeviceWorker(c10::Device device, int threads,
                           SchedulerOptions scheduling, const Clock& clock)
    : DeviceWorker(Kind::kComputes, device, threads, std::move(scheduling),
                   clock) {}

DeviceWorker::DeviceWorker(SchedulerOptions scheduling, const Clock& clock)
    : DeviceWorker(Kind::kChores, c10::Device(c10::kCPU), /*threads=*/1,
                   std::move(scheduling), clock) {}

DeviceWorker::DeviceWorker(Kind kind, c10::Device device, int threads,
                           SchedulerOptions scheduling, const Clock& clock)
    : kind_(kind),
      device_(device),
      threads_(threads),
      scheduling_(std::move(scheduling)),
      clock_(clock),
      scheduler_(scheduling_) {
  if (kind_ == Kind::kComputes && !device_.is_cpu()) {
    copies_ = std::unique_ptr<DeviceWorker>(new DeviceWorker(
        Kind::kCopies, device_, /*threads=*/0, scheduling_, clock_));
  }
  absl::Notification ready;
  thread_ = std::thread([this, &ready] {
    // OpenMP's thread count is a property of the calling thread.
    if (threads_ > 0) at::set_num_threads(threads_);
    threads_ = at::get_num_threads();
    // The current device is one, too. And backwards are to run in this thread:
    // LibTorch has one of its own for those of a GPU.
    RunCatching([&] {
      if (!device_.is_cpu()) {
        const c10::impl::VirtualGuardImpl backend(device_.type());
        backend.setDevice(device_);
        c10::AutogradState::get_tls_state().set_multithreading_enabled(false);
        if (kind_ == Kind::kCopies) {
          backend.exchangeStream(backend.getStreamFromGlobalPool(device_));
        }
      }
      if (kind_ == Kind::kComputes) WarmUp(device_);
      return absl::OkStatus();
    }).IgnoreError();  // Logged. Work will fail, too.
    ready.Notify();
    Pump();
  });
  ready.WaitForNotification();
}

DeviceWorker::~DeviceWorker() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    Change();
  }
  thread_.join();
}

DeviceWorker::Running DeviceWorker::Run(const Request& request,
                                        const Work& work) {
  return {*this, std::make_shared<Item>(request, &work, nullptr)};
}

DeviceWorker::Running DeviceWorker::RunTogether(const Request& request,
                                                BatchWork& work) {
  const int64_t samples = work.NextSamples();
  if (samples == 0) return {*this, nullptr};
  return {*this, std::make_shared<Item>(request, nullptr, &work, samples)};
}

// Submits an item. Returns whether its end lets the coroutine go on; if not,
// the item's status says why it was refused.
bool DeviceWorker::Start(const std::shared_ptr<Item>& item) {
  absl::MutexLock lock(&mutex_);
  const absl::Status submitted = Submit(item);
  if (!submitted.ok()) item->status = submitted;
  return submitted.ok();
}

DeviceWorker::BatchFigures DeviceWorker::batch_figures() const {
  absl::MutexLock lock(&mutex_);
  return batch_figures_;
}

bool DeviceWorker::is_idle() const {
  if (copies_ != nullptr && !copies_->is_idle()) return false;
  absl::MutexLock lock(&mutex_);
  return scheduler_.queued() + scheduler_.running() == 0;
}

absl::Duration DeviceWorker::busy() const {
  absl::MutexLock lock(&mutex_);
  return busy_;
}

std::map<std::string, absl::Duration> DeviceWorker::paid() const {
  absl::MutexLock lock(&mutex_);
  return scheduler_.paid();
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
  // Stopped before GiveUp could find it.
  if (item->request.stop.stop_requested()) return Cancelled();
  const absl::Status queued = Enqueue(item);
  if (!queued.ok()) return QueueFull(queued, item->request);
  if (idles_ && std::this_thread::get_id() != thread_.get_id()) {
    idle_task_->Interrupt();
  }
  Change();
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

// Ends an item that has been stopped, if it waits.
void DeviceWorker::GiveUp(const Item& item) {
  absl::MutexLock lock(&mutex_);
  const auto found = items_.find(item.id);
  if (found == items_.end() || found->second.get() != &item ||
      !scheduler_.Cancel(item.id)) {
    return;
  }
  const std::shared_ptr<Item> ended = Take(item.id);
  ended->status = CheckWanted(ended->request, clock_.Now());
  End({ended});
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
    End(TakeExpired(next.expired));
    if (!next.run.empty()) {
      RunBatch(next);
    } else if (ending_ && scheduler_.queued() == 0) {
      return;
    } else if (next.expired.empty()) {
      Idle(next.wake - clock_.Now());
    }
  }
}

// Runs the idle task, or sleeps until something changes.
void DeviceWorker::Idle(absl::Duration at_most) {
  bool has_run = false;
  const uint64_t seen = changes_;
  if (idle_task_ != nullptr && !ending_ && scheduler_.mean_cost() < kBrief) {
    IdleTask& task = *idle_task_;
    idles_ = true;
    mutex_.Unlock();
    has_run = task.Run(at_most);
    mutex_.Lock();
    idles_ = false;
    if (idle_task_ == nullptr) changed_.SignalAll();
  }
  if (!has_run && changes_ == seen) {
    changed_.WaitWithTimeout(&mutex_, at_most);
  }
}

void DeviceWorker::SetIdleTask(IdleTask* task) {
  absl::MutexLock lock(&mutex_);
  IdleTask* const former = std::exchange(idle_task_, task);
  Change();
  if (idles_) former->Interrupt();
  while (idles_) changed_.WaitWithTimeout(&mutex_, absl::InfiniteDuration());
}

void DeviceWorker::Wake() {
  absl::MutexLock lock(&mutex_);
  Change();
}

void DeviceWorker::RecordGraphs(int64_t max_bytes) {
  graphs_ = std::make_unique<GraphCache>(device_, max_bytes);
}

void DeviceWorker::OnOutOfMemory(const std::function<bool()>& callback) {
  if (copies_ != nullptr) copies_->OnOutOfMemory(callback);
  absl::MutexLock lock(&mutex_);
  on_out_of_memory_ = callback;
}

void DeviceWorker::OnLost(const std::function<void()>& callback) {
  if (copies_ != nullptr) copies_->OnLost(callback);
  absl::MutexLock lock(&mutex_);
  on_lost_ = callback;
}

bool DeviceWorker::is_lost() const {
  if (copies_ != nullptr && copies_->is_lost()) return true;
  absl::MutexLock lock(&mutex_);
  return !lost_.ok();
}

void DeviceWorker::Change() {
  ++changes_;
  changed_.SignalAll();
}

void DeviceWorker::RunBatch(const Scheduler::Dispatch& next) {
  Items all;
  for (const uint64_t id : next.run) all.push_back(Take(id));
  const Items items = WithoutAbandoned(all);
  absl::Duration cost;
  if (!items.empty()) {
    Count(next, items);
    cost = RunWanted(items);
    Meter(items, cost);
  }
  Items ended;
  for (const auto& item : all) {
    if (!GoOn(item)) ended.push_back(item);
  }
  scheduler_.Done(next.run.front(), cost, clock_.Now());
  End(ended);
}

// Lets the coroutines of items go on, without the mutex.
void DeviceWorker::End(const Items& items) {
  if (items.empty()) return;
  mutex_.Unlock();
  for (const auto& item : items) item->waiting->Resume();
  mutex_.Lock();
}

// Returns the items whose callers still wait. The status of the others says why
// they do not run, and they pay nothing.
DeviceWorker::Items DeviceWorker::WithoutAbandoned(const Items& items) {
  Items wanted;
  for (const auto& item : items) {
    item->status = CheckWanted(item->request, clock_.Now());
    if (item->status.ok()) {
      wanted.push_back(item);
    } else {
      scheduler_.Abandon(items.front()->id, item->id);
    }
  }
  return wanted;
}

// Runs `items` until the device has done their work, and returns the time that
// took.
absl::Duration DeviceWorker::RunWanted(const Items& items) {
  if (!lost_.ok()) {
    for (const auto& item : items) item->status = lost_;
    return absl::ZeroDuration();
  }
  mutex_.Unlock();
  absl::Time begin;
  absl::Duration cost;
  absl::Status ended;
  {
    // A copy computes nothing, and waits for nobody's precision.
    std::optional<ScopedPrecision> scope;
    if (kind_ == Kind::kComputes) {
      scope.emplace(device_, items[0]->request.precision);
    }
    begin = clock_.Now();
    RunAll(items);
    ended = RunCatching([&] {
      WaitFor(device_);
      return absl::OkStatus();
    });
    cost = clock_.Now() - begin;
  }
  mutex_.Lock();
  busy_ += cost;
  if (!ended.ok()) Lose(ended);
  for (const auto& item : items) {
    if (!ended.ok()) item->status = lost_;
    if (!item->continues) item->times.queue = begin - item->submitted;
    item->times.compute += cost;
  }
  return cost;
}

// Divides the time that a batch took among its items, as the scheduler does.
void DeviceWorker::Meter(const Items& items, absl::Duration cost) const {
  if (kind_ == Kind::kCopies) return;
  int64_t samples = 0;
  for (const auto& item : items) samples += item->samples;
  for (const auto& item : items) {
    if (item->request.meter == nullptr) continue;
    item->request.meter->Add(cost * item->samples / samples);
  }
}

// Notes that the device is lost: CUDA gives it up for good after a failure that
// a wait finds.
void DeviceWorker::Lose(const absl::Status& failure) {
  lost_ =
      Error(absl::StatusCode::kUnavailable, Reason::kDeviceLost,
            absl::StrCat("the device ", device_.str(),
                         " is lost, and the server ends: ", failure.message()));
  if (on_lost_) on_lost_();
}

// Queues the next turn of an item, if there is one, and returns whether there
// is.
bool DeviceWorker::GoOn(const std::shared_ptr<Item>& item) {
  if (!item->status.ok() || item->batch_work == nullptr) return false;
  item->samples = item->batch_work->NextSamples();
  if (item->samples == 0) return false;
  item->status = CheckWanted(item->request, clock_.Now());
  if (!item->status.ok()) return false;
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
  int64_t samples = 0;
  for (const auto& item : items) samples += item->samples;
  batch_figures_.samples += samples;
  const auto size = std::bit_width(static_cast<uint64_t>(samples - 1));
  ++batch_figures_
        .sizes[std::min<size_t>(size, batch_figures_.sizes.size() - 1)];
}

std::shared_ptr<DeviceWorker::Item> DeviceWorker::Take(uint64_t id) {
  return std::move(items_.extract(id).mapped());
}

DeviceWorker::Items DeviceWorker::TakeExpired(
    const std::vector<uint64_t>& ids) {
  Items expired;
  for (uint64_t id : ids) {
    expired.push_back(Take(id));
    expired.back()->status = Expired();
  }
  return expired;
}

}  // namespace backboned
