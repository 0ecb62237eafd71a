// Layers as values: indices into a layout, and a function that uses them.
//
// A constructor declares the layer's tensors in Python's order of registration,
// and PyTorch's default initialisation in the order of its draws. The call
// operator makes the ATen calls of the Python module of the same name, hence
// its bits. Source: torch/nn/modules, torch 2.11.
//
// Immutable, and safe to use from several passes at once.

#ifndef BACKBONED_BACKBONES_LAYERS_H_
#define BACKBONED_BACKBONES_LAYERS_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "backbones/layout.h"
#include "backbones/pass.h"

namespace backboned {

// nn.Linear: x W^T + b.
class Linear {
 public:
  // Declares `name`.weight [out_features, in_features] and, if there is one,
  // `name`.bias [out_features].
  Linear(Layout& layout, const std::string& name, int64_t in_features,
         int64_t out_features, bool bias = true);

  // `x`: [..., in_features]. Returns [..., out_features].
  at::Tensor operator()(Pass& pass, const at::Tensor& x) const;

  // Indices of the layer's parameters. Call bias() only if there is one.
  size_t weight() const { return weight_; }
  size_t bias() const { return bias_.value(); }
  bool has_bias() const { return bias_.has_value(); }

 private:
  size_t weight_;
  std::optional<size_t> bias_;
};

// The options of a convolution; names as in Python.
struct Conv2dOptions {
  int64_t kernel_size = 3;
  int64_t stride = 1;
  int64_t padding = 0;
  int64_t groups = 1;
  bool bias = false;
};

// Returns a 3x3 convolution that keeps the sides, or halves them with stride 2.
inline Conv2dOptions Conv3x3(int64_t stride) {
  return {.kernel_size = 3, .stride = stride, .padding = 1};
}

// nn.Conv2d.
class Conv2d {
 public:
  // Declares `name`.weight [out_channels, in_channels / groups, kernel_size,
  // kernel_size] and, if there is one, `name`.bias [out_channels].
  Conv2d(Layout& layout, const std::string& name, int64_t in_channels,
         int64_t out_channels, const Conv2dOptions& options);

  // `x`: [N, in_channels, H, W]. Returns [N, out_channels, H', W'].
  at::Tensor operator()(Pass& pass, const at::Tensor& x) const;

 private:
  Conv2dOptions options_;
  size_t weight_;
  std::optional<size_t> bias_;
};

// The options of a batch normalisation; names and defaults as in Python.
struct BatchNorm2dOptions {
  double eps = 1e-5;
  double momentum = 0.1;
};

// nn.BatchNorm2d, affine and with running statistics.
class BatchNorm2d {
 public:
  // Declares `name`.weight and `name`.bias [num_features], and the buffers
  // `name`.running_mean, .running_var [num_features] and .num_batches_tracked.
  BatchNorm2d(Layout& layout, const std::string& name, int64_t num_features,
              const BatchNorm2dOptions& options = BatchNorm2dOptions());

  // `x`: [N, num_features, H, W]. Returns its shape.
  at::Tensor operator()(Pass& pass, const at::Tensor& x) const;

 private:
  BatchNorm2dOptions options_;
  BatchNormTensors tensors_;
};

// nn.LayerNorm over the last dimension, affine.
class LayerNorm {
 public:
  // Declares `name`.weight and `name`.bias [features].
  LayerNorm(Layout& layout, const std::string& name, int64_t features,
            double eps = 1e-5);

  // `x`: [..., features]. Returns its shape.
  at::Tensor operator()(Pass& pass, const at::Tensor& x) const;

 private:
  int64_t features_;
  double eps_;
  size_t weight_;
  size_t bias_;
};

// Declares kaiming_normal_(mode="fan_out") for the weights of all convolutions
// so far, in their order, on top of the default draws.
void AddKaimingNormal(Layout& layout);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_LAYERS_H_
