// Forwards of instances, each the way that suits it: from the feature cache, in
// a batch with others, in the instance's lane, or alone.

#ifndef BACKBONED_SERVER_COMPUTE_FORWARD_H_
#define BACKBONED_SERVER_COMPUTE_FORWARD_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/task.h"
#include "server/compute/forward_run.h"
#include "server/device/device_worker.h"
#include "server/limits/payer_accounts.h"
#include "server/tapes/tape_store.h"

namespace backboned {

// Runs a forward: with the state that the instance has now, or, if it changes
// the instance or is in training with the instance's buffers, in the instance's
// lane, with the state that it has then; there it publishes the moved buffers
// and generator, and puts a recorded forward's tape into `tapes`. Nothing is
// kept or published if it fails.
//
// One with an input digest whose answer the instance's feature cache has takes
// no time of the device; otherwise its answer is kept there, and the account of
// the instance's owner, one of `accounts`, pays for it.
Task<absl::StatusOr<ForwardDone>> RunForward(TapeStore& tapes,
                                             PayerAccounts& accounts,
                                             DeviceWorker::Request request,
                                             ForwardWork work);

// Returns the bytes of a row of the first output of `work`, as computed. They
// are measured by a forward of the first row, and the instance remembers them.
// The input has at least one row.
Task<absl::StatusOr<int64_t>> RowBytes(DeviceWorker::Request request,
                                       const ForwardWork& work);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_FORWARD_H_
