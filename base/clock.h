// Measures time that changes of the date do not touch.

#ifndef BACKBONED_BASE_CLOCK_H_
#define BACKBONED_BASE_CLOCK_H_

#include <condition_variable>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace backboned {

// Measures durations and lifetimes. Its times say nothing of the date: compare
// them only with times of the same clock, never with absl::Now().
//
// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  // Returns the time, which never goes back.
  virtual absl::Time Now() const = 0;
};

// The system's CLOCK_MONOTONIC: steps of the wall clock do not move it, and it
// stands still while the machine is suspended.
const Clock& MonotonicClock();

// A condition variable whose timeouts run on CLOCK_MONOTONIC. Those of
// absl::CondVar run on the wall clock: setting that back by an hour makes them
// an hour longer.
//
// Thread-safe.
class MonotonicCondVar {
 public:
  // Waits until SignalAll, at most `timeout`. May wake up early.
  void WaitWithTimeout(absl::Mutex* mutex, absl::Duration timeout)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  // Wakes all waiting threads.
  void SignalAll() { changed_.notify_all(); }

 private:
  std::condition_variable_any changed_;
};

}  // namespace backboned

#endif  // BACKBONED_BASE_CLOCK_H_
