// Waits for what comes soon without sleep.

#ifndef BACKBONED_BASE_SPIN_H_
#define BACKBONED_BASE_SPIN_H_

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace backboned {

// The waits of one thread at a time. A core that sleeps takes tens of
// microseconds to wake up, in a virtual machine often more than a small call
// takes in all. So a thread that was woken up soon the last time polls for a
// while before it sleeps, and lets other threads have the core in between.
class Spin {
 public:
  // The longest wait behind which the next one begins with polls, and how long
  // these go on.
  static constexpr absl::Duration kLongest = absl::Milliseconds(1);

  // `may_poll`: whether to poll at all; by default unless the environment says
  // that threads wait asleep: OMP_WAIT_POLICY=PASSIVE. `clock` must outlive
  // this.
  explicit Spin(bool may_poll = MayPoll(),
                const Clock& clock = MonotonicClock());

  // Begins a wait: calls `poll` until it returns true, once at least. Returns
  // whether it did; if not, the caller sleeps, and calls Woke.
  bool Poll(absl::FunctionRef<bool()> poll);

  // Notes the end of a wait that had a sleep.
  void Woke();

 private:
  static bool MayPoll();

  const bool may_poll_;
  const Clock& clock_;
  bool polls_ = false;
  absl::Time begun_;
};

}  // namespace backboned

#endif  // BACKBONED_BASE_SPIN_H_
