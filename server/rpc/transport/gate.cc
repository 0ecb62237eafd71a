#include "server/rpc/transport/gate.h"

#include <utility>

#include "absl/time/clock.h"
#include "base/clock.h"
#include "server/rpc/transport/status.h"

namespace backboned::rpc {
namespace {

constexpr absl::Duration kRetryDelay = absl::Milliseconds(100);

}  // namespace

Gate::Gate(int64_t max_calls, const Quotas& quotas)
    : places_({.name = "max-calls",
               .unit = "call",
               .limit = max_calls,
               .quotas = quotas,
               .retry_delay = kRetryDelay}) {}

void Gate::GiveBack(Budget::Reservation place) {
  place.Release();
  absl::MutexLock lock(&mutex_);
  if (--calls_ == 0) empty_.SignalAll();
}

absl::StatusOr<Gate::Pass> Gate::Enter(const Payer& payer) {
  absl::MutexLock lock(&mutex_);
  if (draining_) {
    ++refused_;
    return Draining();
  }
  absl::StatusOr<Budget::Reservation> place = places_.Reserve(payer, 1);
  if (!place.ok()) return place.status();
  ++calls_;
  return Pass(this, *std::move(place));
}

void Gate::Drain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
}

bool Gate::is_draining() const {
  absl::MutexLock lock(&mutex_);
  return draining_;
}

void Gate::WaitUntilEmpty(absl::Duration timeout) {
  const absl::Time end = MonotonicClock().Now() + timeout;
  absl::MutexLock lock(&mutex_);
  while (calls_ > 0) {
    const absl::Duration left = end - MonotonicClock().Now();
    if (left <= absl::ZeroDuration()) return;
    empty_.WaitWithTimeout(&mutex_, left);
  }
}

void Gate::WaitUntilQuiet(absl::Duration pause, absl::Duration timeout) {
  const absl::Time end = MonotonicClock().Now() + timeout;
  int64_t before = -1;
  while (MonotonicClock().Now() < end) {
    {
      absl::MutexLock lock(&mutex_);
      if (refused_ == before) return;
      before = refused_;
    }
    absl::SleepFor(pause);
  }
}

}  // namespace backboned::rpc
