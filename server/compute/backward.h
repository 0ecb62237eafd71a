// Backwards of instances' tapes: from host tensors to host tensors.

#ifndef BACKBONED_SERVER_COMPUTE_BACKWARD_H_
#define BACKBONED_SERVER_COMPUTE_BACKWARD_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/inputs.h"
#include "backbones/optimizer.h"
#include "backbones/state.h"
#include "base/task.h"
#include "server/device/device_worker.h"
#include "server/instances/instance.h"
#include "server/limits/budget.h"
#include "server/tapes/tape_store.h"

namespace backboned {

// One backward to run.
struct BackwardWork {
  std::shared_ptr<Instance> instance;
  TapeLease lease;
  // By tape of the lease and by output: of a floating-point type, CPU;
  // undefined: none.
  std::vector<std::vector<at::Tensor>> output_grads;
  bool retain = false;
  bool accumulate = false;
  bool zero_before = false;  // With `accumulate`.
  bool input_grad = false;
  bool return_grads = false;
  bool per_tape_grads = false;
  bool squared_grads = false;
  std::optional<StepOptions> step = {};        // With `accumulate`.
  std::optional<at::ScalarType> output_dtype;  // Absent: as computed.
  Budget::Reservation reservation;  // Pays for the gradients' upload.
};

// The result of a backward. All tensors: CPU, contiguous; undefined: none.
struct BackwardDone {
  std::vector<at::Tensor> grads;    // By parameter, if asked for.
  std::vector<Inputs> input_grads;  // By tape, if asked for.
  // By tape and by parameter, if asked for.
  std::vector<std::vector<at::Tensor>> tape_grads;
  std::vector<at::Tensor> squared_grads;  // By parameter, if asked for.
  std::optional<StepOutput> step;         // Present if the backward stepped.
  StatePtr state;                         // The instance's after the backward.
  int64_t flops = 0;  // Its operations, and of forwards that ran again.
  DeviceWorker::Times times;
};

// Runs a backward, in the instance's lane if it accumulates, and publishes
// gradients and step as one State. Once it began, the tapes are used up, unless
// it succeeds and `retain` is set; before that, they go back to the store. A
// failure changes nothing else.
Task<absl::StatusOr<BackwardDone>> RunBackward(DeviceWorker::Request request,
                                               BackwardWork work);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_BACKWARD_H_
