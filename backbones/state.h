// A State: parameters, buffers, gradients and optimizer of one version, as one
// value.
//
// Its tensors are contiguous, need no gradient, and are never written in place
// once the State is published. A write makes a new State, with new tensors in
// place of the changed ones and the same tensors for the rest. So a State is
// safe to read from any thread for as long as it is held, whatever happens to
// the instance.
//
// These functions touch no shared memory; call those that say "computes", which
// run LibTorch's kernels, on the device's worker.

#ifndef BACKBONED_BACKBONES_STATE_H_
#define BACKBONED_BACKBONES_STATE_H_

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "backbones/layout.h"
#include "backbones/parameter_group.h"
#include "backbones/selection.h"

namespace backboned {

// An optimizer and its state. Immutable once it is part of a State, as are its
// tensors.
struct OptimizerState {
  OptimizerKind kind = OptimizerKind::kSgd;
  std::vector<ParameterGroup> groups;
  // By parameter: its group. Absent: it is never stepped.
  std::vector<std::optional<size_t>> group_of;
  // By parameter: its tensors in the order of SlotNames. Empty: none yet.
  // `step` is a float32 scalar on the CPU; the others have the parameter's
  // shape, dtype and device.
  std::vector<std::vector<at::Tensor>> slots;
};

using OptimizerPtr = std::shared_ptr<const OptimizerState>;

struct State {
  // In layout order, all of one dtype: float32, float64, float16 or bfloat16.
  std::vector<at::Tensor> params;
  // In layout order; floating-point ones have the parameters' dtype.
  std::vector<at::Tensor> buffers;
  // Parameters of earlier columns, by entry of Layout::shared(), of the
  // parameters' dtype. Later changes of the columns' instances change nothing
  // here.
  std::vector<at::Tensor> shared;
  // By parameter, of its shape and dtype; an undefined tensor means no
  // gradient, which is not zero.
  std::vector<at::Tensor> grads;
  // The CPU generator of the next draws of stochastic layers, in the form of
  // GeneratorFromState.
  std::string rng_state;
  // Null: the instance has no optimizer.
  OptimizerPtr optimizer;
  uint64_t params_version = 1;
  uint64_t buffers_version = 1;
  // The changes of `grads` since the parameters or buffers changed.
  uint64_t grads_changes = 0;
};

using StatePtr = std::shared_ptr<const State>;

// Returns the dtype of the State's parameters.
at::ScalarType DtypeOf(const State& state);

// Returns the CPU generator after `torch.manual_seed(seed)`.
at::Generator SeededGenerator(uint64_t seed);

// The bytes of a CPU generator's state.
inline constexpr size_t kGeneratorStateBytes = 5056;

// Returns the CPU generator whose `torch.get_rng_state()` is `bytes`.
//
// Returns kInvalidArgument (kInvalidOption) if `bytes` are no such state.
absl::StatusOr<at::Generator> GeneratorFromState(
    std::span<const std::byte> bytes);

// Returns the kGeneratorStateBytes bytes of `torch.get_rng_state()`.
std::string GeneratorState(const at::Generator& generator);

// An earlier column of a progressive network.
struct Column {
  const Layout* layout = nullptr;
  StatePtr state;
};

// Returns `state` with the tensors that `layout` takes from `columns`, which
// have them in the right shapes, without a copy. Versions stay.
StatePtr WithColumns(const State& state, const Layout& layout,
                     std::span<const Column> columns);

// Returns host memory to receive `slices` of `tensors` into: for each slice an
// uninitialised tensor on the CPU with the shape of its tensor if whole, else
// [elements]. Its dtype is its tensor's; for floating-point tensors it is
// `dtype`, if given.
std::vector<at::Tensor> FreshTensors(std::span<const at::Tensor> tensors,
                                     std::span<const Slice> slices,
                                     std::optional<at::ScalarType> dtype = {});

// Returns `slices` of `tensors`, flat, without a copy. Undefined tensors stay
// undefined.
std::vector<at::Tensor> SliceTensors(std::span<const at::Tensor> tensors,
                                     std::span<const Slice> slices);

// Computes a State whose parameters in `slices` are `values` (in the form of
// FreshTensors), and starts a new version of the parameters. Another dtype is
// converted, as PyTorch's `to` does. A whole tensor of the State's dtype and
// device is not copied: the caller must not write to it again. The rest of a
// cut tensor is copied from `state`.
StatePtr WithParams(const State& state, std::span<const Slice> slices,
                    std::span<const at::Tensor> values);

// Does the same as WithParams for buffers.
StatePtr WithBuffers(const State& state, std::span<const Slice> slices,
                     std::span<const at::Tensor> values);

// Returns a State with new `buffers`, all of them, as a training forward leaves
// them, and starts a new version of the buffers.
StatePtr WithBuffers(const State& state, std::vector<at::Tensor> buffers);

// Returns a State whose generator is at `rng_state`. Versions stay.
StatePtr WithRngState(const State& state, std::string rng_state);

// Computes a State whose gradients in `slices`, all whole, are `values`,
// converted as by WithParams; an undefined value removes a gradient. Versions
// stay.
StatePtr WithGrads(const State& state, std::span<const Slice> slices,
                   std::span<const at::Tensor> values);

// Computes a State with the sums of `state`'s gradients and `grads`, by
// parameter; if one is undefined, the other is taken. Versions stay.
StatePtr WithAddedGrads(const State& state, std::span<const at::Tensor> grads);

// The optional parts of a clone; it always has parameters, buffers, generator.
struct CloneParts {
  bool grads = false;
  bool optimizer = false;
};

// Returns a State with the same tensors for a new instance: at version 1, with
// only those `parts`.
StatePtr CloneOf(const State& state, const CloneParts& parts);

// Returns CloneOf `state` without parts, in which the parameters of the head of
// `layout` are those of `fresh`, a State of `layout` or of its head alone.
//
// Returns kInvalidArgument (kInvalidOption) if `layout` declares no head, or
// differs from `state` in more than the head.
absl::StatusOr<StatePtr> ForkOf(const State& state, const Layout& layout,
                                const State& fresh);

// Calls `visit` with each defined tensor of the State: parameters, buffers,
// gradients, those of earlier columns and the optimizer's.
void ForEachTensor(const State& state,
                   absl::FunctionRef<void(const at::Tensor&)> visit);

// Returns a State of `layout`, at version 1, whose tensors have no memory: they
// are on the device `meta`. It has no gradients and no generator, parameters of
// `dtype`, and `optimizer` without its state; null: none.
State MetaState(const Layout& layout, at::ScalarType dtype,
                const OptimizerPtr& optimizer);

// Returns whether the State's tensors have no memory.
bool IsMeta(const State& state);

// Returns the bytes of the tensors that ForEachTensor visits.
int64_t StateBytes(const State& state);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_STATE_H_
