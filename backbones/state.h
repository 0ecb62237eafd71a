// A State: parameters, buffers, gradients and optimizer of one version, as one
// value.
//
// Its tensors are contiguous, need no gradient, and are never written in place
// once the State is published. A write makes a new State, with new tensors for
// what changed and the same ones for the rest; so a State is safe to read from
// any thread for as long as it is held, whatever happens to the instance
// meanwhile.
//
// The functions here touch no shared memory; those that say "computes" call
// LibTorch's kernels and belong on the device's worker.

#ifndef BACKBONED_BACKBONES_STATE_H_
#define BACKBONED_BACKBONES_STATE_H_

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/layout.h"
#include "backbones/selection.h"

namespace backboned {

struct OptimizerState;  // backbones/optimizer.h

struct State {
  // In layout order, float32.
  std::vector<at::Tensor> params;
  // In layout order.
  std::vector<at::Tensor> buffers;
  // One a parameter, of its shape; an undefined tensor is no gradient, which is
  // not zero.
  std::vector<at::Tensor> grads;
  // The CPU generator that stochastic layers draw from next, as
  // GeneratorFromState takes it.
  std::string rng_state;
  // Null: the instance has no optimizer.
  std::shared_ptr<const OptimizerState> optimizer;
  uint64_t params_version = 1;
  uint64_t buffers_version = 1;
};

using StatePtr = std::shared_ptr<const State>;

// Returns the CPU generator that `torch.manual_seed(seed)` leaves.
at::Generator SeededGenerator(uint64_t seed);

// Bytes of a CPU generator's state.
inline constexpr size_t kGeneratorStateBytes = 5056;

// Returns the CPU generator whose `torch.get_rng_state()` is `bytes`.
//
// Returns kInvalidArgument (kInvalidOption) if they are not such a state.
absl::StatusOr<at::Generator> GeneratorFromState(
    std::span<const std::byte> bytes);

// Returns the kGeneratorStateBytes of `torch.get_rng_state()`.
std::string GeneratorState(const at::Generator& generator);

// Computes the first State of `layout` on `device`: drawn on the CPU from
// `generator`, which moves on as Python's constructor moves it and is the
// State's from there on.
StatePtr InitialState(const Layout& layout, const at::Generator& generator,
                      at::Device device);

// Returns host memory to receive `slices` of `tensors` into: for each slice an
// uninitialised tensor on the CPU with the dtype and, if whole, the shape of
// its tensor, else [elements].
std::vector<at::Tensor> FreshTensors(std::span<const at::Tensor> tensors,
                                     std::span<const Slice> slices);

// Returns `slices` of `tensors`, flat, without a copy. Undefined stays
// undefined.
std::vector<at::Tensor> SliceTensors(std::span<const at::Tensor> tensors,
                                     std::span<const Slice> slices);

// Computes a State whose parameters in `slices` are `values` (as FreshTensors
// makes them), and starts a new version of the parameters. A whole tensor on
// the State's device is taken as it is: the caller must not write to it again.
// The rest of a cut tensor is copied from `state`.
StatePtr WithParams(const State& state, std::span<const Slice> slices,
                    std::span<const at::Tensor> values);

// As WithParams, for buffers.
StatePtr WithBuffers(const State& state, std::span<const Slice> slices,
                     std::span<const at::Tensor> values);

// Returns a State with all `buffers` new, as a training forward leaves them,
// and starts a new version of the buffers.
StatePtr WithBuffers(const State& state, std::vector<at::Tensor> buffers);

// Returns a State whose generator is at `rng_state`. Versions stay.
StatePtr WithRngState(const State& state, std::string rng_state);

// Computes a State whose gradients in `slices`, all whole, are `values`; an
// undefined value takes a gradient away. Versions stay.
StatePtr WithGrads(const State& state, std::span<const Slice> slices,
                   std::span<const at::Tensor> values);

// Computes a State whose gradients are `state`'s plus `grads`, one a parameter;
// what is undefined on one side is taken from the other. Versions stay.
StatePtr WithAddedGrads(const State& state, std::span<const at::Tensor> grads);

// What a clone takes along besides parameters, buffers and generator.
struct CloneParts {
  bool grads = false;
  bool optimizer = false;
};

// Returns a State with the same tensors, as a new instance begins with it: at
// version 1, with those `parts` only.
StatePtr CloneOf(const State& state, const CloneParts& parts);

// Returns CloneOf `state` without parts, in which the parameters of the head of
// `layout` are those of `fresh`, a State of `layout`.
//
// Returns kInvalidArgument (kInvalidOption) if `layout` declares no head, or
// differs from `state` in more than the head.
absl::StatusOr<StatePtr> ForkOf(const State& state, const Layout& layout,
                                const State& fresh);

// Returns all tensors of the State that are defined, without its
// optimizer's.
std::vector<at::Tensor> TensorsOf(const State& state);

// Returns the bytes of the State's tensors, its optimizer's too.
int64_t StateBytes(const State& state);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_STATE_H_
