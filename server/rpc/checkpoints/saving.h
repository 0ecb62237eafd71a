// Saves an instance's state in the server's folder.

#ifndef BACKBONED_SERVER_RPC_CHECKPOINTS_SAVING_H_
#define BACKBONED_SERVER_RPC_CHECKPOINTS_SAVING_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "backboned/v1/checkpoint.pb.h"
#include "backbones/state.h"
#include "base/task.h"
#include "server/checkpoints/checkpoint_store.h"
#include "server/device/device_worker.h"
#include "server/instances/instance.h"

namespace backboned::rpc {

// The checkpoint that a state becomes.
struct SaveOptions {
  std::string owner;
  std::string name;
  int keep = 1;  // Of the owner's checkpoints of this name.
  // Of a living instance, for the server itself, as long as it lives.
  bool recovery = false;
};

// Saves `state`, one of the instance's, in `store`; its digest is a chore.
//
// Returns the errors of CheckpointStore::Save, Digest and DeviceWorker::Run.
Task<absl::StatusOr<v1::Checkpoint>> SaveState(
    CheckpointStore& store, DeviceWorker& chores, DeviceWorker::Request request,
    std::shared_ptr<Instance> instance, StatePtr state, SaveOptions options);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CHECKPOINTS_SAVING_H_
