// Who may enter: the part of the decorator that all methods share.

#ifndef BACKBONED_SERVER_RPC_GATE_H_
#define BACKBONED_SERVER_RPC_GATE_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace backboned::rpc {

// Counts the calls inside, refuses those over the limit or after the drain
// began.
//
// Thread-safe.
class Gate {
 public:
  explicit Gate(int64_t max_calls) : max_calls_(max_calls) {}

  // One call that is inside, until it is destroyed.
  class Pass {
   public:
    explicit Pass(Gate* gate) : gate_(gate) {}
    Pass(Pass&& other) noexcept : gate_(other.gate_) { other.gate_ = nullptr; }
    Pass& operator=(Pass&&) = delete;
    ~Pass();

   private:
    Gate* gate_;
  };

  // Lets a call in: kUnavailable (draining) or kResourceExhausted otherwise.
  absl::StatusOr<Pass> Enter();

  // From now on nobody enters.
  void Drain();

  // Waits until nobody is inside; false if that took longer than `timeout`.
  bool WaitUntilEmpty(absl::Duration timeout);

 private:
  const int64_t max_calls_;
  absl::Mutex mutex_;
  int64_t calls_ ABSL_GUARDED_BY(mutex_) = 0;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_GATE_H_
