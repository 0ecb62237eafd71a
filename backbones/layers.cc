#include "backbones/layers.h"

#include <ATen/ops/conv2d.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>

#include <cmath>

namespace backboned {
namespace {

// Returns PyTorch's draw for weights of Linear and Conv2d: kaiming_uniform_
// with a = sqrt(5), computed in the same steps.
UniformDraw DefaultWeightDraw(int64_t fan_in) {
  const double gain = std::sqrt(2.0 / (1 + std::pow(std::sqrt(5.0), 2)));
  const double deviation = gain / std::sqrt(static_cast<double>(fan_in));
  const double bound = std::sqrt(3.0) * deviation;
  return {.low = -bound, .high = bound};
}

UniformDraw DefaultBiasDraw(int64_t fan_in) {
  const double bound = 1 / std::sqrt(static_cast<double>(fan_in));
  return {.low = -bound, .high = bound};
}

}  // namespace

Linear::Linear(Layout& layout, const std::string& name, int64_t in_features,
               int64_t out_features, bool bias)
    : weight_(
          layout.AddParameter(name + ".weight", {out_features, in_features})) {
  layout.AddInitStep(weight_, DefaultWeightDraw(in_features));
  if (bias) {
    bias_ = layout.AddParameter(name + ".bias", {out_features});
    layout.AddInitStep(*bias_, DefaultBiasDraw(in_features));
  }
}

at::Tensor Linear::operator()(Pass& pass, const at::Tensor& x) const {
  const at::Tensor& weight = pass.parameter(weight_);
  pass.CountProduct(x, weight, x.numel() * weight.size(0));
  return at::linear(x, weight, bias_ ? pass.parameter(*bias_) : at::Tensor());
}

Conv2d::Conv2d(Layout& layout, const std::string& name, int64_t in_channels,
               int64_t out_channels, const Conv2dOptions& options)
    : options_(options),
      weight_(layout.AddParameter(name + ".weight",
                                  {out_channels, in_channels / options.groups,
                                   options.kernel_size, options.kernel_size})) {
  const int64_t fan_in =
      in_channels / options.groups * options.kernel_size * options.kernel_size;
  layout.AddInitStep(weight_, DefaultWeightDraw(fan_in));
  if (options.bias) {
    bias_ = layout.AddParameter(name + ".bias", {out_channels});
    layout.AddInitStep(*bias_, DefaultBiasDraw(fan_in));
  }
}

at::Tensor Conv2d::operator()(Pass& pass, const at::Tensor& x) const {
  const at::Tensor& weight = pass.parameter(weight_);
  at::Tensor y = at::conv2d(
      x, weight, bias_ ? pass.parameter(*bias_) : at::Tensor(), options_.stride,
      options_.padding, /*dilation=*/1, options_.groups);
  pass.CountProduct(x, weight, y.numel() * weight.numel() / weight.size(0));
  return y;
}

void AddKaimingNormal(Layout& layout) {
  for (size_t i = 0; i < layout.parameters().size(); ++i) {
    const std::vector<int64_t>& shape = layout.parameters()[i].shape;
    if (shape.size() != 4) continue;
    const auto fan_out = static_cast<double>(shape[0] * shape[2] * shape[3]);
    layout.AddInitStep(i,
                       NormalDraw{.std = std::sqrt(2.0) / std::sqrt(fan_out)});
  }
}

BatchNorm2d::BatchNorm2d(Layout& layout, const std::string& name,
                         int64_t num_features,
                         const BatchNorm2dOptions& options)
    : options_(options),
      tensors_{.layer = layout.AddBatchNorm(name),
               .weight = layout.AddParameter(name + ".weight", {num_features}),
               .bias = layout.AddParameter(name + ".bias", {num_features}),
               .running_mean = layout.AddBuffer(name + ".running_mean",
                                                {num_features}, at::kFloat, 0),
               .running_var = layout.AddBuffer(name + ".running_var",
                                               {num_features}, at::kFloat, 1),
               .num_batches_tracked = layout.AddBuffer(
                   name + ".num_batches_tracked", {}, at::kLong, 0)} {
  layout.AddInitStep(tensors_.weight, ConstantFill{1});
  layout.AddInitStep(tensors_.bias, ConstantFill{0});
}

at::Tensor BatchNorm2d::operator()(Pass& pass, const at::Tensor& x) const {
  return pass.BatchNorm(x, tensors_, options_.eps, options_.momentum);
}

LayerNorm::LayerNorm(Layout& layout, const std::string& name, int64_t features,
                     double eps)
    : features_(features),
      eps_(eps),
      weight_(layout.AddParameter(name + ".weight", {features})),
      bias_(layout.AddParameter(name + ".bias", {features})) {
  layout.AddInitStep(weight_, ConstantFill{1});
  layout.AddInitStep(bias_, ConstantFill{0});
}

at::Tensor LayerNorm::operator()(Pass& pass, const at::Tensor& x) const {
  return at::layer_norm(x, {features_}, pass.parameter(weight_),
                        pass.parameter(bias_), eps_);
}

}  // namespace backboned
