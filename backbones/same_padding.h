// TensorFlow's "same" convolution: as many outputs as inputs / stride.

#ifndef BACKBONED_BACKBONES_SAME_PADDING_H_
#define BACKBONED_BACKBONES_SAME_PADDING_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "backbones/layers.h"
#include "backbones/layout.h"
#include "backbones/pass.h"

namespace backboned {

// A Conv2d behind zero padding that is fixed for square maps of one side,
// whatever the maps: Mammoth's Conv2dStaticSamePadding. An odd padding has its
// larger part below and on the right.
class SamePaddingConv2d {
 public:
  // Declares a Conv2d. `options.padding` is ignored; `side`: the side of the
  // maps that the padding is for.
  SamePaddingConv2d(Layout& layout, const std::string& name,
                    int64_t in_channels, int64_t out_channels,
                    const Conv2dOptions& options, int64_t side);

  // `x`: [N, in_channels, H, W]. Returns [N, out_channels, H', W'].
  at::Tensor operator()(Pass& pass, const at::Tensor& x) const;

  // Returns the side of the outputs for maps of `side`. 0: the maps are smaller
  // than the kernel, which PyTorch refuses.
  int64_t OutputSide(int64_t side) const;

 private:
  int64_t kernel_size_;
  int64_t stride_;
  // Zeros before and behind the map, in each dimension.
  int64_t before_;
  int64_t behind_;
  Conv2d conv_;
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_SAME_PADDING_H_
