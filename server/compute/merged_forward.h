// Runs forwards of several callers as one batch.

#ifndef BACKBONED_SERVER_COMPUTE_MERGED_FORWARD_H_
#define BACKBONED_SERVER_COMPUTE_MERGED_FORWARD_H_

#include "absl/status/statusor.h"
#include "base/task.h"
#include "server/compute/forward_run.h"
#include "server/device/device_worker.h"

namespace backboned {

// Returns whether a forward may run in one batch with others: its caller allows
// it, it changes and records nothing, and the device's worker makes batches.
bool MayMerge(const ForwardWork& work);

// Runs a forward that MayMerge with the state `used`, together with waiting
// forwards of the same trunk. A forward with more samples than a batch may have
// takes several turns; others have their turns in between.
Task<absl::StatusOr<ForwardDone>> RunMerged(DeviceWorker::Request request,
                                            ForwardWork work, StatePtr used);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_MERGED_FORWARD_H_
