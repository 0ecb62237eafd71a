#include "backbones/same_padding.h"

#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>

namespace backboned {
namespace {

// Returns the zeros that maps of `side` need in one dimension.
int64_t TotalPadding(const Conv2dOptions& options, int64_t side) {
  const int64_t outputs = (side - 1) / options.stride + 1;
  return std::max<int64_t>(
      (outputs - 1) * options.stride + options.kernel_size - side, 0);
}

Conv2dOptions WithoutPadding(Conv2dOptions options) {
  options.padding = 0;
  return options;
}

}  // namespace

SamePaddingConv2d::SamePaddingConv2d(Layout& layout, const std::string& name,
                                     int64_t in_channels, int64_t out_channels,
                                     const Conv2dOptions& options, int64_t side)
    : kernel_size_(options.kernel_size),
      stride_(options.stride),
      before_(TotalPadding(options, side) / 2),
      behind_(TotalPadding(options, side) - before_),
      conv_(layout, name, in_channels, out_channels, WithoutPadding(options)) {}

at::Tensor SamePaddingConv2d::operator()(Pass& pass,
                                         const at::Tensor& x) const {
  if (behind_ == 0) return conv_(pass, x);
  return conv_(pass,
               at::constant_pad_nd(x, {before_, behind_, before_, behind_}));
}

int64_t SamePaddingConv2d::OutputSide(int64_t side) const {
  const int64_t padded = side + before_ + behind_;
  return padded < kernel_size_ ? 0 : (padded - kernel_size_) / stride_ + 1;
}

}  // namespace backboned
