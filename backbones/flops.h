// Counts the floating-point operations of forwards and backwards.

#ifndef BACKBONED_BACKBONES_FLOPS_H_
#define BACKBONED_BACKBONES_FLOPS_H_

#include <cstdint>

namespace backboned {

// The operations of a forward, and of the whole backward of its graph: 0 if it
// has none.
//
// Counted are the products of matrices, convolutions and attention, of which a
// multiplication and an addition are two operations, as
// torch.utils.flop_counter does. A product takes as many again for each of its
// two factors that needs a gradient.
struct Flops {
  int64_t forward = 0;
  int64_t backward = 0;

  int64_t total() const { return forward + backward; }
  bool operator==(const Flops&) const = default;
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_FLOPS_H_
