#include "server/rpc/transport/stall_watchdog.h"

#include <utility>

namespace backboned::rpc {

StallWatchdog::StallWatchdog(absl::Duration timeout, const Clock& clock)
    : timeout_(timeout), clock_(clock), thread_([this] { Watch(); }) {}

StallWatchdog::~StallWatchdog() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    ended_.SignalAll();
  }
  thread_.join();
}

void StallWatchdog::Watch() {
  absl::MutexLock lock(&mutex_);
  while (!ending_) {
    ended_.WaitWithTimeout(&mutex_, timeout_ / 8);
    CancelStalled(clock_.Now());
  }
}

void StallWatchdog::CancelStalled(absl::Time now) {
  for (Transfer* transfer : transfers_) {
    const bool moves = now - transfer->progress_ < timeout_ &&
                       now - transfer->begin_ < kMostTimeouts * timeout_;
    if (transfer->stalled_ || moves) continue;
    transfer->stalled_ = true;
    transfer->cancel_();  // Only marks the call; takes none of our locks.
  }
}

StallWatchdog::Transfer::Transfer(StallWatchdog& watchdog,
                                  std::function<void()> cancel)
    : watchdog_(watchdog),
      cancel_(std::move(cancel)),
      begin_(watchdog.clock_.Now()),
      progress_(begin_) {
  absl::MutexLock lock(&watchdog_.mutex_);
  watchdog_.transfers_.insert(this);
}

StallWatchdog::Transfer::~Transfer() {
  absl::MutexLock lock(&watchdog_.mutex_);
  watchdog_.transfers_.erase(this);
}

void StallWatchdog::Transfer::Moved(int64_t bytes) {
  absl::MutexLock lock(&watchdog_.mutex_);
  moved_bytes_ += bytes;
  if (moved_bytes_ < kProgressBytes) return;
  moved_bytes_ = 0;
  progress_ = watchdog_.clock_.Now();
}

bool StallWatchdog::Transfer::stalled() const {
  absl::MutexLock lock(&watchdog_.mutex_);
  return stalled_;
}

}  // namespace backboned::rpc
