// Forwards of several callers as one batch.

#ifndef BACKBONED_SERVER_COMPUTE_MERGED_FORWARD_H_
#define BACKBONED_SERVER_COMPUTE_MERGED_FORWARD_H_

#include "absl/status/statusor.h"
#include "server/compute/forward_run.h"
#include "server/device/device_worker.h"

namespace backboned {

// Whether a forward may run in one batch with others: its caller allows it, it
// changes nothing and is not kept, and the device's worker makes batches.
bool MayMerge(const ForwardWork& work);

// Runs a forward that MayMerge, together with what waits of the same trunk, in
// several turns if it has more samples than a batch may have; others have
// theirs in between. `used` is the state that it runs with.
absl::StatusOr<ForwardDone> RunMerged(DeviceWorker::Request request,
                                      ForwardWork work, StatePtr used);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_MERGED_FORWARD_H_
