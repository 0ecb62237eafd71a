// Makes the first State of an instance.

#ifndef BACKBONED_SERVER_INSTANCES_FIRST_STATE_H_
#define BACKBONED_SERVER_INSTANCES_FIRST_STATE_H_

#include <c10/core/Device.h>

#include <string>

#include "absl/status/statusor.h"
#include "backbones/state.h"
#include "backbones/weights.h"
#include "base/task.h"
#include "server/device/device_worker.h"
#include "server/instances/beginning.h"
#include "server/instances/weights_folder.h"

namespace backboned {

// A State on the worker's device, and its origin.
struct FirstState {
  State state;
  std::string rng_state = {};       // After the draws, if a state was given.
  std::string weights_sha256 = {};  // Empty: none.
  LoadPlan loaded = {};
};

// Draws, loads or shares the tensors, as `options.beginning` has it. Weights
// come from `folder` and are checked before anything is drawn. Draws and loads
// are chores of the caller's; only a copy to a GPU is one of its worker's
// copies.
//
// Returns kInvalidArgument (generator state, classes, weights that do not fit),
// kNotFound or kFailedPrecondition (no such weights, or corrupt ones), kAborted
// (the condition), and the errors of DeviceWorker::Run.
Task<absl::StatusOr<FirstState>> MakeFirstState(const CreateOptions& options,
                                                const Blueprint& plan,
                                                const WeightsFolder& folder,
                                                DeviceWorker& chores,
                                                DeviceWorker& worker);

// Moves all that belongs there to `device`. For that device's copies.
void MoveTo(c10::Device device, State& state);

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_FIRST_STATE_H_
