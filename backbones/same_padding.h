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

// A Conv2d behind a padding with zeros that is fixed for square maps of one
// side, whatever maps come: Mammoth's Conv2dStaticSamePadding. An odd padding
// has its larger part below and on the right.
class SamePaddingConv2d {
 public:
  // Declares what Conv2d declares. `options.padding` is taken no notice of;
  // `side`: that of the maps for which the padding is right.
  SamePaddingConv2d(Layout& layout, const std::string& name,
                    int64_t in_channels, int64_t out_channels,
                    const Conv2dOptions& options, int64_t side);

  // `x`: [N, in_channels, H, W]. Returns [N, out_channels, H', W'].
  at::Tensor operator()(Pass& pass, const at::Tensor& x) const;

  // Returns the side of the maps that those of `side` become. 0: they are
  // smaller than the kernel, which PyTorch refuses.
  int64_t OutputSide(int64_t side) const;

 private:
  int64_t kernel_size_;
  int64_t stride_;
  // Zeros before and behind, of each dimension.
  int64_t before_;
  int64_t behind_;
  Conv2d conv_;
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_SAME_PADDING_H_
