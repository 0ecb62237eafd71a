// Who may enter: the part of the decorator that all methods share.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_GATE_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_GATE_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/token.h"
#include "server/limits/budget.h"

namespace backboned::rpc {

// Counts the calls inside, refuses those over the limit or their caller's part
// of it, and all after the drain began.
//
// Thread-safe.
class Gate {
 public:
  Gate(int64_t max_calls, const Quotas& quotas);

  // One call that is inside, until it is destroyed.
  using Pass = Token<Gate, Budget::Reservation>;

  // Lets a call in: kUnavailable (draining) or kResourceExhausted otherwise.
  absl::StatusOr<Pass> Enter(const Payer& payer);

  // Who is inside.
  const Budget& places() const { return places_; }
  int64_t max_calls() const { return places_.limit(); }

  // From now on nobody enters.
  void Drain();

  // Waits until nobody is inside, for `timeout` at most.
  void WaitUntilEmpty(absl::Duration timeout);

  // After Drain: waits until nobody was refused for `pause`, for `timeout` at
  // most.
  void WaitUntilQuiet(absl::Duration pause, absl::Duration timeout);

 private:
  friend Pass;

  void GiveBack(Budget::Reservation place);

  Budget places_;
  absl::Mutex mutex_;
  MonotonicCondVar empty_;  // The last one left.
  int64_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t refused_ ABSL_GUARDED_BY(mutex_) = 0;  // Since the drain began.
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_GATE_H_
