// Computes the Swish activation.

#ifndef BACKBONED_BACKBONES_SWISH_H_
#define BACKBONED_BACKBONES_SWISH_H_

#include <ATen/core/Tensor.h>

namespace backboned {

// Returns x * sigmoid(x). Its backward keeps only `x` and computes the sigmoid
// again, in the steps, hence with the bits, of Mammoth's MemoryEfficientSwish;
// the bits of at::silu differ.
//
// Source: Ramachandran et al. 2017, arXiv:1710.05941.
at::Tensor Swish(const at::Tensor& x);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_SWISH_H_
