// Steps an instance's optimizer, alone or as part of a training step.

#ifndef BACKBONED_SERVER_COMPUTE_TRAIN_H_
#define BACKBONED_SERVER_COMPUTE_TRAIN_H_

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/losses.h"
#include "backbones/optimizer.h"
#include "base/task.h"
#include "server/compute/forward_run.h"
#include "server/device/device_worker.h"
#include "server/instances/instance.h"

namespace backboned {

// The result of a step.
struct StepDone {
  StepOutput output;
  DeviceWorker::Times times;
};

// Steps the optimizer with the instance's gradients, in the instance's lane,
// and publishes the result. Nothing changes if it fails.
Task<absl::StatusOr<StepDone>> RunStep(DeviceWorker::Request request,
                                       Instance& instance,
                                       VersionCondition condition,
                                       StepOptions options);

// One training step to run.
struct TrainWork {
  // In training mode, without a tape and buffers, with `out` as its only
  // output.
  ForwardWork forward;
  std::vector<LossTerm> terms;      // CheckTerms accepts them; on the CPU.
  Budget::Reservation reservation;  // Pays for the terms' upload.
  StepOptions step;
  bool return_logits = false;
};

// The result of a training step.
struct TrainDone {
  LossValues loss;
  StepOutput step;
  at::Tensor logits;      // On the CPU, contiguous; if asked for.
  std::string rng_state;  // After the forward, if one was given.
  int64_t flops = 0;      // Of forward and backward.
  DeviceWorker::Times times;
};

// Runs a forward in training mode, the loss, its backward and a step with only
// those gradients, in the instance's lane, and publishes buffers, parameters
// and optimizer as one State without gradients. Nothing changes if it fails.
Task<absl::StatusOr<TrainDone>> RunTrainStep(DeviceWorker::Request request,
                                             TrainWork work);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_TRAIN_H_
