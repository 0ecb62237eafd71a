// Converts between instances and the records of their checkpoints.

#ifndef BACKBONED_SERVER_RPC_CONVERT_CHECKPOINT_CONVERT_H_
#define BACKBONED_SERVER_RPC_CONVERT_CHECKPOINT_CONVERT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "backboned/v1/record.pb.h"
#include "backbones/state.h"
#include "server/checkpoints/checkpoint_store.h"
#include "server/instances/beginning.h"
#include "server/instances/instance.h"

namespace backboned::rpc {

// Returns the record of `state`, one of the instance's, but for the
// checkpoint's name and owner, and what CheckpointStore::Save adds.
v1::Record RecordOf(Instance& instance, const State& state);

// Returns how the instance of a record was, which comes back. With a `version`
// it comes back in that one, higher than all before, since some were lost; 0:
// as it was.
Restored::Former FormerOf(const v1::Record& record, uint64_t version);

// Returns the options of an instance in the state of a checkpoint in `store`,
// with the settings that were saved; name, owner, caller and device are left to
// the caller.
//
// Returns kFailedPrecondition (kCheckpointUnreadable) if this server knows no
// such architecture, or its optimizer does not fit.
absl::StatusOr<CreateOptions> OptionsOf(const v1::Record& record,
                                        CheckpointStore& store);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CONVERT_CHECKPOINT_CONVERT_H_
