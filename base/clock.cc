#include "base/clock.h"

#include <algorithm>
#include <chrono>

#include "absl/time/time.h"

namespace backboned {
namespace {

class SteadyClock : public Clock {
 public:
  absl::Time Now() const override {
    return absl::UnixEpoch() +
           absl::FromChrono(
               std::chrono::steady_clock::now().time_since_epoch());
  }
};

// A mutex in the form that the standard library's condition variables need.
struct Lockable {
  absl::Mutex& mutex;
  void lock() ABSL_NO_THREAD_SAFETY_ANALYSIS { mutex.Lock(); }
  void unlock() ABSL_NO_THREAD_SAFETY_ANALYSIS { mutex.Unlock(); }
};

}  // namespace

const Clock& MonotonicClock() {
  static const SteadyClock clock;
  return clock;
}

void MonotonicCondVar::WaitWithTimeout(absl::Mutex* mutex,
                                       absl::Duration timeout) {
  // Long enough to mean for ever, and no overflow.
  constexpr absl::Duration kLongest = absl::Hours(24);
  Lockable lock{*mutex};
  changed_.wait_for(lock,
                    absl::ToChronoNanoseconds(std::min(timeout, kLongest)));
}

}  // namespace backboned
