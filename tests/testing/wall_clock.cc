#include "tests/testing/wall_clock.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace {

std::atomic<int64_t> offset_s = 0;

}  // namespace

// Replaces the C library's in the program that links it.
extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const long result = syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec += offset_s.load();
  return static_cast<int>(result);
}

namespace backboned {

void StepWallClock(absl::Duration step) {
  offset_s += absl::ToInt64Seconds(step);
}

}  // namespace backboned
