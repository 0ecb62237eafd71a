// Admits calls for the decorator, until a drain begins.

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

// Counts the calls inside. Refuses calls over the limit or their caller's part
// of it, and all calls after the drain began.
//
// Thread-safe.
class Gate {
 public:
  Gate(int64_t max_calls, const Quotas& quotas);

  // A call that is inside until this object is destroyed.
  using Pass = Token<Gate, Budget::Reservation>;

  // Lets a call in, or returns kUnavailable (draining) or kResourceExhausted.
  absl::StatusOr<Pass> Enter(const Payer& payer);

  // The places of the calls inside, by payer.
  const Budget& places() const { return places_; }
  int64_t max_calls() const { return places_.limit(); }

  // Refuses all calls from now on.
  void Drain();
  bool is_draining() const;

  // Waits until no call is inside, at most `timeout`.
  void WaitUntilEmpty(absl::Duration timeout);

  // After Drain: waits until no call was refused for `pause`, at most
  // `timeout`.
  void WaitUntilQuiet(absl::Duration pause, absl::Duration timeout);

 private:
  friend Pass;

  void GiveBack(Budget::Reservation place);

  Budget places_;
  mutable absl::Mutex mutex_;
  MonotonicCondVar empty_;  // Signalled when the last call leaves.
  int64_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t refused_ ABSL_GUARDED_BY(mutex_) = 0;  // During the drain.
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_GATE_H_
