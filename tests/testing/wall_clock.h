// Steps the wall clock.

#ifndef BACKBONED_TESTS_TESTING_WALL_CLOCK_H_
#define BACKBONED_TESTS_TESTING_WALL_CLOCK_H_

#include "absl/time/time.h"

namespace backboned {

// Sets the wall clock of this process forward, or back if `step` is negative,
// as an administrator, NTP or a resumed machine does. absl::Now(), the standard
// library and gRPC see it; waits that have begun do not.
void StepWallClock(absl::Duration step);

}  // namespace backboned

#endif  // BACKBONED_TESTS_TESTING_WALL_CLOCK_H_
