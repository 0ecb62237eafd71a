// A clock that a test sets.

#ifndef BACKBONED_TESTS_TESTING_TEST_CLOCK_H_
#define BACKBONED_TESTS_TESTING_TEST_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"
#include "base/clock.h"

namespace backboned {

// Stands still except for Advance. Thread-safe.
class TestClock : public Clock {
 public:
  absl::Time Now() const override {
    return absl::UnixEpoch() + absl::Nanoseconds(nanoseconds_.load());
  }

  void Advance(absl::Duration duration) {
    nanoseconds_ += absl::ToInt64Nanoseconds(duration);
  }

 private:
  std::atomic<int64_t> nanoseconds_ = 0;
};

}  // namespace backboned

#endif  // BACKBONED_TESTS_TESTING_TEST_CLOCK_H_
