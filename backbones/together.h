// Forwards of several inputs as one batch.
//
// What networks have in common is computed once: those with the same trunk run
// it over all of their inputs, and each distinct head over its own rows. The
// last bits of the results differ from those of single forwards, since LibTorch
// sums in another order for another batch size.

#ifndef BACKBONED_BACKBONES_TOGETHER_H_
#define BACKBONED_BACKBONES_TOGETHER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/forward.h"
#include "backbones/state.h"

namespace backboned {

// One forward in evaluation mode, without a record and with all BatchNorm
// layers as they are by themselves.
struct ForwardPart {
  const Architecture* architecture = nullptr;
  const State* state = nullptr;
  // As Forward takes it.
  at::Tensor x;
  const ForwardOptions* options = nullptr;
};

// A number that is equal for parts that CanRunTogether, and for others hardly
// ever, as long as their States are held. The input's dtype does not count: it
// need not be prepared yet.
uint64_t TogetherKey(const ForwardPart& part);

// Whether two parts have the same trunk (the same tensors, not equal ones),
// inputs that differ in N at most, and stages alike.
bool CanRunTogether(const ForwardPart& a, const ForwardPart& b);

// Runs `parts`, of which each can run together with the first. Returns their
// outputs in the same order; buffers are the States' own.
std::vector<ForwardOutput> ForwardTogether(std::span<const ForwardPart> parts);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_TOGETHER_H_
