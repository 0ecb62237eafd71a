// Long work of the server's own: drawing, reading files, digests.

#ifndef BACKBONED_SERVER_DEVICE_CHORES_H_
#define BACKBONED_SERVER_DEVICE_CHORES_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "server/device/device_worker.h"

namespace backboned {

// Elements that a turn draws: some milliseconds' worth.
inline constexpr int64_t kDrawnInATurn = int64_t{1} << 20;

// Runs `step` on `chores` again and again until it returns false, and waits for
// that. Each time is a turn of its own: others' chores have theirs in between,
// by their runs' shares, and after the deadline, or once the caller has gone,
// there is no further one. The request's account pays for what it allocates.
//
// Returns the step's first error, or those of DeviceWorker::Run.
absl::StatusOr<DeviceWorker::Times> RunChore(
    DeviceWorker& chores, const DeviceWorker::Request& request,
    absl::FunctionRef<absl::StatusOr<bool>()> step);

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_CHORES_H_
