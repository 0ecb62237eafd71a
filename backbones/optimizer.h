// Optimizers as pure functions, with the meaning and the defaults of PyTorch.
//
// A step makes new tensors for all that it changes and never writes to the
// given ones. On a CPU its results equal those of `torch.optim` (PyTorch 2.11,
// `foreach` and `fused` left alone) to the bit: it calls the same kernels in
// the same order with the same numbers.
//
// Call functions that say "computes" on the device's worker.

#ifndef BACKBONED_BACKBONES_OPTIMIZER_H_
#define BACKBONED_BACKBONES_OPTIMIZER_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backbones/layout.h"
#include "backbones/parameter_group.h"
#include "backbones/selection.h"
#include "backbones/state.h"

namespace backboned {

// The most patterns of all groups of an optimizer together, and their bytes:
// several times those of all names of a network.
inline constexpr size_t kMaxGroupGlobs = 4096;
inline constexpr size_t kMaxGroupGlobBytes = size_t{64} << 10;

// The slot that counts a parameter's steps.
inline constexpr std::string_view kStepSlot = "step";

// Returns the slots of a stepped parameter of `group`, in PyTorch's terms:
// `momentum_buffer` (with SGD only if it was ever stepped with a momentum), or
// `step`, `exp_avg`, `exp_avg_sq`, `max_exp_avg_sq`.
std::vector<std::string_view> SlotNames(OptimizerKind kind,
                                        const ParameterGroup& group);

// Makes an optimizer of the parameters of `layout`, without state.
//
// Returns kInvalidArgument (kInvalidOption), which names the group, if there is
// no group, a number is out of its range, or a selection is not valid, cuts a
// parameter, selects none, or selects one of another group; and if there are
// more patterns than kMaxGroupGlobs and kMaxGroupGlobBytes allow.
absl::StatusOr<OptimizerPtr> MakeOptimizer(OptimizerKind kind,
                                           std::vector<ParameterGroup> groups,
                                           const Layout& layout);

// Bounds the p-norm of all gradients together.
struct ClipNorm {
  double max_norm = 0;
  double norm_type = 2;  // Infinity: the largest absolute value.
};

// Returns kFailedPrecondition (kReadOnly) unless the parameters of `state` are
// float32 or float64.
absl::Status CheckOptimizable(const State& state);

struct StepOptions {
  // By group, from this step on. Empty: no change.
  std::vector<double> lr = {};
  std::vector<GroupSettings> settings = {};
  // Set at most one of the two.
  std::optional<ClipNorm> clip_norm = {};
  std::optional<double> clip_value = {};
  // Removes all gradients afterwards.
  bool zero_after = false;
};

// Returns kFailedPrecondition (kNoOptimizer) if `state` has no optimizer,
// kInvalidArgument (kInvalidOption) if `options` do not fit it.
absl::Status CheckStep(const State& state, const StepOptions& options);

struct StepOutput {
  StatePtr state;
  // Before the clipping. Only with `clip_norm`.
  std::optional<double> grad_norm;
  // The number of parameters that changed.
  int64_t stepped_count = 0;
};

// Computes the State after one step with the gradients of `state`, and starts a
// new version of the parameters. Steps the parameters of a group that have a
// gradient and are `trained` (by parameter; empty: all are); the norm of
// `clip_norm` is that of their gradients, in layout order.
//
// Returns CheckStep's errors, and kFailedPrecondition (kNoGradients) if no
// parameter would be stepped.
absl::StatusOr<StepOutput> Step(const State& state, const StepOptions& options,
                                const std::vector<bool>& trained = {});

// Returns `state` with `optimizer` in place of its own; null removes it.
// Versions stay.
StatePtr WithOptimizer(const State& state, OptimizerPtr optimizer);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_OPTIMIZER_H_
