// Runs forwards of several inputs as one batch.
//
// Networks with the same trunk run it once over all of their inputs; each
// distinct head runs once over its own rows. The last bits of the results
// differ from those of single forwards, since LibTorch sums in another order
// for another batch size.

#ifndef BACKBONED_BACKBONES_TOGETHER_H_
#define BACKBONED_BACKBONES_TOGETHER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/forward.h"
#include "backbones/inputs.h"
#include "backbones/state.h"

namespace backboned {

// A forward in evaluation mode, without a record and with the default mode of
// all BatchNorm layers.
struct ForwardPart {
  const Architecture* architecture = nullptr;
  const State* state = nullptr;
  // In the form that Forward takes.
  Inputs inputs;
  const ForwardOptions* options = nullptr;
};

// Returns a number that is equal for parts that CanRunTogether, and hardly ever
// for others, as long as their States are held. Does not depend on the inputs'
// dtypes: they need not be prepared.
uint64_t TogetherKey(const ForwardPart& part);

// Returns whether two parts have the same trunk (the same tensors, not equal
// ones), inputs that differ at most in N, and the same kind of stages.
bool CanRunTogether(const ForwardPart& a, const ForwardPart& b);

// Runs `parts`, each of which can run together with the first. Returns their
// outputs in the same order; buffers are the States' own.
std::vector<ForwardOutput> ForwardTogether(std::span<const ForwardPart> parts);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_TOGETHER_H_
