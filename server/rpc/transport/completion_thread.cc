#include "server/rpc/transport/completion_thread.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "base/clock.h"
#include "server/rpc/transport/completion.h"

namespace backboned::rpc {
namespace {

// After such a time without a lead the own thread takes it.
constexpr absl::Duration kLongestAbsence = absl::Milliseconds(2);

// The own thread stops to watch a worker that waits for longer.
constexpr absl::Duration kRest = absl::Milliseconds(50);

// A worker that has been busy for so long, without a wait, has company.
constexpr absl::Duration kLongestStint = absl::Milliseconds(2);
constexpr absl::Duration kCrowd = absl::Milliseconds(100);

// A wait that is to end sooner is not for the queue, whose deadlines have whole
// milliseconds: the worker waits for others to join a batch then.
constexpr absl::Duration kShortestWait = absl::Milliseconds(20);

void Handle(void* tag, bool ok) {
  TakeTag(tag);
  static_cast<Completion*>(tag)->Complete(ok);
}

}  // namespace

CompletionThread::CompletionThread(
    std::unique_ptr<grpc::ServerCompletionQueue> queue, DeviceWorker& worker)
    : queue_(std::move(queue)),
      worker_(worker),
      left_(MonotonicClock().Now()),
      thread_([this] { StandBy(); }) {
  worker_.SetIdleTask(this);
}

CompletionThread::~CompletionThread() {
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &CompletionThread::IsUnused));
  }
  worker_.SetIdleTask(nullptr);
  queue_->Shutdown();
  {
    absl::MutexLock lock(&mutex_);
    ends_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void CompletionThread::Enter() {
  absl::MutexLock lock(&mutex_);
  ++users_;
}

void CompletionThread::Leave() {
  absl::MutexLock lock(&mutex_);
  --users_;
}

// Leads until something was handled, if nobody else does.
bool CompletionThread::Run(absl::Duration at_most) {
  {
    absl::MutexLock lock(&mutex_);
    if (is_interrupted_.exchange(false)) return true;
    const absl::Time now = MonotonicClock().Now();
    if (now - stint_ > kLongestStint || at_most < kShortestWait) {
      crowded_until_ = now + kCrowd;
      changed_.SignalAll();
    }
    if (is_led_ || now < crowded_until_) {
      worker_would_ = true;
      stint_ = absl::InfiniteFuture();
      return false;
    }
    is_led_ = true;
    stint_ = std::min(stint_, now);
  }
  void* tag = nullptr;
  bool ok = false;
  auto next = grpc::CompletionQueue::TIMEOUT;
  bool has_waited = false;
  const bool came = spin_.Poll([&] {
    next = queue_->AsyncNext(&tag, &ok, gpr_time_0(GPR_CLOCK_MONOTONIC));
    if (next != grpc::CompletionQueue::TIMEOUT) return true;
    has_waited = true;
    return false;
  });
  if (!came) {
    next =
        queue_->AsyncNext(&tag, &ok, absl::ToChronoTime(absl::Now() + at_most));
    spin_.Woke();
  }
  if (has_waited) stint_ = MonotonicClock().Now();
  {
    absl::MutexLock lock(&mutex_);
    is_led_ = false;
    is_interrupted_ = false;
    left_ = MonotonicClock().Now();
    if (rests_) changed_.SignalAll();
  }
  if (next == grpc::CompletionQueue::GOT_EVENT) Handle(tag, ok);
  return true;
}

// The own thread may be the one that takes what is posted.
void CompletionThread::Interrupt() {
  is_interrupted_ = true;
  Post(*queue_, [] {});
}

// Leads when the worker does not.
void CompletionThread::StandBy() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    const absl::Time now = MonotonicClock().Now();
    const bool is_away = !is_led_ && (now - left_ >= kLongestAbsence ||
                                      now < crowded_until_ || ends_);
    if (is_away) {
      if (!Lead()) return;
    } else {
      rests_ = is_led_ && now - left_ > kRest && !ends_;
      changed_.WaitWithTimeout(
          &mutex_, rests_ ? absl::InfiniteDuration() : kLongestAbsence);
      rests_ = false;
    }
  }
}

// Leads until the worker may. Returns false at the queue's end.
bool CompletionThread::Lead() {
  is_led_ = true;
  const absl::Time until = crowded_until_;
  mutex_.Unlock();
  void* tag = nullptr;
  bool ok = false;
  bool has_event = false;
  do {
    has_event = queue_->Next(&tag, &ok);
    if (has_event) Handle(tag, ok);
  } while (has_event && !(worker_would_ && MonotonicClock().Now() >= until));
  mutex_.Lock();
  is_led_ = false;
  left_ = MonotonicClock().Now();
  worker_would_ = false;
  mutex_.Unlock();
  worker_.Wake();
  mutex_.Lock();
  return has_event;
}

}  // namespace backboned::rpc
