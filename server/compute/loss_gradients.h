// Computes a training step's loss and gradients.

#ifndef BACKBONED_SERVER_COMPUTE_LOSS_GRADIENTS_H_
#define BACKBONED_SERVER_COMPUTE_LOSS_GRADIENTS_H_

#include <ATen/core/Tensor.h>

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/losses.h"
#include "backbones/state.h"
#include "server/compute/forward_run.h"

namespace backboned {

// All tensors are on the instance's device, without a graph.
struct LossGradients {
  LossOutput loss;
  at::Tensor logits;  // [N, K]
  // After the forward; nothing if it moves none.
  std::vector<at::Tensor> buffers;
  std::string rng_state;  // After the forward; empty if it did not draw.
  std::vector<at::Tensor> grads;  // By parameter; undefined: none.
  int64_t flops = 0;              // Of forward and backward.
};

// For the worker: runs the forward of `work`, whose only output is `out`, with
// `state`, the loss of `terms`, whose tensors are on the CPU, and its backward;
// as a CUDA graph if the worker records these and the step allows it. Returns
// the errors of CheckClasses.
absl::StatusOr<LossGradients> ComputeLossGradients(
    const ForwardWork& work, const State& state,
    std::span<const LossTerm> terms);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_LOSS_GRADIENTS_H_
