// Runs the server's own long work: drawing, reading files, digests.

#ifndef BACKBONED_SERVER_DEVICE_CHORES_H_
#define BACKBONED_SERVER_DEVICE_CHORES_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "base/task.h"
#include "server/device/device_worker.h"

namespace backboned {

// The number of elements that one turn draws, in some milliseconds.
inline constexpr int64_t kDrawnInATurn = int64_t{1} << 20;

// Runs `step` on `chores` again and again until it returns false. Each run is a
// turn: chores of other callers have turns in between, by their runs' shares.
// After the deadline, or once the caller has gone, there are no further turns.
// The request's account pays for the memory; its meter gets nothing.
//
// Returns the step's first error, or an error of DeviceWorker::Run.
Task<absl::StatusOr<DeviceWorker::Times>> RunChore(
    DeviceWorker& chores, const DeviceWorker::Request& request,
    const std::function<absl::StatusOr<bool>()>& step);

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_CHORES_H_
