#include "backbones/efficientnet.h"

#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/floor.h>
#include <ATen/ops/sigmoid.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/image_input.h"
#include "backbones/swish.h"

namespace backboned {
namespace {

constexpr std::array<EfficientNet::Scaling, 10> kScalings = {{
    {"b0", 1.0, 1.0, 224, 0.2},
    {"b1", 1.0, 1.1, 240, 0.2},
    {"b2", 1.1, 1.2, 260, 0.3},
    {"b3", 1.2, 1.4, 300, 0.3},
    {"b4", 1.4, 1.8, 380, 0.4},
    {"b5", 1.6, 2.2, 456, 0.4},
    {"b6", 1.8, 2.6, 528, 0.5},
    {"b7", 2.0, 3.1, 600, 0.5},
    {"b8", 2.2, 3.6, 672, 0.5},
    {"l2", 4.3, 5.3, 800, 0.5},
}};

// Blocks of b0 that differ only in their first one.
struct Group {
  int64_t blocks;
  int64_t kernel_size;
  int64_t stride;
  int64_t expand_ratio;
  int64_t in_filters;
  int64_t out_filters;
};

constexpr std::array<Group, 7> kGroups = {{
    {1, 3, 1, 1, 32, 16},
    {2, 3, 2, 6, 16, 24},
    {2, 5, 2, 6, 24, 40},
    {3, 3, 2, 6, 40, 80},
    {3, 5, 1, 6, 80, 112},
    {4, 5, 2, 6, 112, 192},
    {1, 3, 1, 6, 192, 320},
}};

constexpr int64_t kStemFilters = 32;
constexpr int64_t kLastFilters = 1280;
// Five resolutions, the last convolution, and the features.
constexpr int64_t kStages = 7;
// The probability that the block after the last one would drop its residual.
constexpr double kDropConnect = 0.2;
// TensorFlow's momentum in PyTorch's form.
constexpr BatchNorm2dOptions kBatchNorm = {.eps = 1e-3, .momentum = 1 - 0.99};
constexpr Conv2dOptions k1x1 = {.kernel_size = 1};
constexpr Conv2dOptions k1x1Bias = {.kernel_size = 1, .bias = true};
constexpr Conv2dOptions kStem = {.kernel_size = 3, .stride = 2};

const EfficientNet::Scaling& ScalingOf(const Arguments& arguments) {
  const auto& type = std::get<std::string>(arguments.at("efficientnet_type"));
  return *std::ranges::find(kScalings, type, &EfficientNet::Scaling::type);
}

// Returns a multiple of 8, at least nine tenths of the scaled number.
int64_t ScaledFilters(int64_t filters, double width) {
  constexpr int64_t kDivisor = 8;
  const double meant = static_cast<double>(filters) * width;
  const int64_t rounded =
      static_cast<int64_t>(meant + static_cast<double>(kDivisor) / 2) /
      kDivisor * kDivisor;
  const int64_t scaled = std::max(kDivisor, rounded);
  return static_cast<double>(scaled) < 0.9 * meant ? scaled + kDivisor : scaled;
}

int64_t ScaledBlocks(int64_t blocks, double depth) {
  return static_cast<int64_t>(std::ceil(depth * static_cast<double>(blocks)));
}

// Zeroes whole samples of `x` [N, C, H, W] with probability `p`, in Mammoth's
// steps, which differ from those of Pass::DropPath.
at::Tensor DropConnect(Pass& pass, const at::Tensor& x, double p) {
  if (!pass.flags().training || p == 0) return x;
  const double keep = 1 - p;
  const at::Tensor kept =
      at::floor(pass.Uniform({x.size(0), 1, 1, 1}, x).add(keep));
  return x.div(keep).mul(kept);
}

}  // namespace

EfficientNet::EfficientNet(const Arguments& arguments)
    : EfficientNet(arguments, ScalingOf(arguments),
                   std::get<int64_t>(arguments.at("num_classes"))) {}

EfficientNet::EfficientNet(const Arguments& arguments, const Scaling& scaling,
                           int64_t num_classes)
    : Architecture({.name = "efficientnet",
                    .arguments = arguments,
                    .input_shape = {3, -1, -1},
                    .layer_count = kStages,
                    .stochastic = true}),
      dropout_(scaling.dropout),
      stem_(declare(), "_conv_stem", 3,
            ScaledFilters(kStemFilters, scaling.width), kStem,
            scaling.resolution),
      bn0_(declare(), "_bn0", ScaledFilters(kStemFilters, scaling.width),
           kBatchNorm),
      blocks_(DeclareBlocks(declare(), scaling)),
      last_conv_(declare(), "_conv_head",
                 ScaledFilters(kGroups.back().out_filters, scaling.width),
                 ScaledFilters(kLastFilters, scaling.width), k1x1),
      bn1_(declare(), "_bn1", ScaledFilters(kLastFilters, scaling.width),
           kBatchNorm),
      classifier_(declare_head(), "classifier",
                  ScaledFilters(kLastFilters, scaling.width), num_classes) {}

EfficientNet::Block EfficientNet::DeclareBlock(Layout& layout,
                                               const BlockShape& shape) {
  const auto name = [&](const char* part) {
    return absl::StrCat(shape.name, ".", part);
  };
  const int64_t in = shape.in_filters;
  const int64_t wide = in * shape.expand_ratio;
  const int64_t squeezed = std::max<int64_t>(1, in / 4);
  std::optional<Conv2d> expand;
  std::optional<BatchNorm2d> bn0;
  if (shape.expand_ratio != 1) {
    expand.emplace(layout, name("_expand_conv"), in, wide, k1x1);
    bn0.emplace(layout, name("_bn0"), wide, kBatchNorm);
  }
  const Conv2dOptions depthwise = {
      .kernel_size = shape.kernel_size, .stride = shape.stride, .groups = wide};
  const int64_t out = shape.out_filters;
  return {
      .expand = expand,
      .bn0 = bn0,
      .depthwise = SamePaddingConv2d(layout, name("_depthwise_conv"), wide,
                                     wide, depthwise, shape.side),
      .bn1 = BatchNorm2d(layout, name("_bn1"), wide, kBatchNorm),
      .squeeze = Conv2d(layout, name("_se_reduce"), wide, squeezed, k1x1Bias),
      .excite = Conv2d(layout, name("_se_expand"), squeezed, wide, k1x1Bias),
      .project = Conv2d(layout, name("_project_conv"), wide, out, k1x1),
      .bn2 = BatchNorm2d(layout, name("_bn2"), out, kBatchNorm)};
}

std::vector<EfficientNet::Block> EfficientNet::DeclareBlocks(
    Layout& layout, const Scaling& scaling) {
  std::vector<Block> blocks;
  int64_t side = Halved(scaling.resolution, 1);
  for (const Group& group : kGroups) {
    if (group.stride == 2) blocks.back().ends_stage = true;
    BlockShape shape = {
        .in_filters = ScaledFilters(group.in_filters, scaling.width),
        .out_filters = ScaledFilters(group.out_filters, scaling.width),
        .expand_ratio = group.expand_ratio,
        .kernel_size = group.kernel_size,
        .stride = group.stride,
        .side = side};
    const int64_t count = ScaledBlocks(group.blocks, scaling.depth);
    for (int64_t i = 0; i < count; ++i) {
      shape.name = absl::StrCat("_blocks.", blocks.size());
      blocks.push_back(DeclareBlock(layout, shape));
      blocks.back().residual = i > 0;
      // The other blocks keep the first one's output side.
      side = Halved(side, shape.stride == 2 ? 1 : 0);
      shape.in_filters = shape.out_filters;
      shape.stride = 1;
      shape.side = side;
    }
  }
  blocks.back().ends_stage = true;
  return blocks;
}

int64_t EfficientNet::LastSide(int64_t side) const {
  int64_t left = stem_.OutputSide(side);
  for (const Block& block : blocks_) {
    if (left > 0) left = block.depthwise.OutputSide(left);
  }
  return left;
}

absl::Status EfficientNet::CheckInput(std::span<const int64_t> shape,
                                      bool training) const {
  if (shape.size() != 4 || shape[0] < 0 || shape[1] != 3) {
    return ImageMismatch(shape, "");
  }
  const int64_t height = LastSide(shape[2]);
  const int64_t width = LastSide(shape[3]);
  if (height == 0 || width == 0) {
    int64_t smallest = 1;
    while (LastSide(smallest) == 0) ++smallest;
    return ImageMismatch(shape,
                         absl::StrCat(" with H and W at least ", smallest));
  }
  if (shape[0] == 0) return absl::OkStatus();
  return CheckBatchNorm(shape, training, height, width);
}

at::Tensor EfficientNet::RunBlock(Pass& pass, const Block& block,
                                  const at::Tensor& x, double drop) {
  at::Tensor out = x;
  if (block.expand && block.bn0) {
    out = Swish((*block.bn0)(pass, (*block.expand)(pass, out)));
  }
  out = Swish(block.bn1(pass, block.depthwise(pass, out)));
  const at::Tensor squeezed =
      Swish(block.squeeze(pass, at::adaptive_avg_pool2d(out, {1, 1})));
  out = at::sigmoid(block.excite(pass, squeezed)).mul(out);
  out = block.bn2(pass, block.project(pass, out));
  return block.residual ? DropConnect(pass, out, drop).add(x) : out;
}

TrunkOutputs EfficientNet::Trunk(Pass& pass, const at::Tensor& x) const {
  std::vector<at::Tensor> layers;
  at::Tensor out = Swish(bn0_(pass, stem_(pass, x)));
  const auto count = static_cast<double>(blocks_.size());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const double drop = kDropConnect * (static_cast<double>(i) / count);
    out = RunBlock(pass, blocks_[i], out, drop);
    if (blocks_[i].ends_stage) layers.push_back(out);
  }
  out = Swish(bn1_(pass, last_conv_(pass, out)));
  const at::Tensor features = at::adaptive_avg_pool2d(out, {1, 1}).flatten(1);
  layers.push_back(out);
  layers.push_back(features);
  return {.features = features, .layers = std::move(layers)};
}

at::Tensor EfficientNet::Head(Pass& pass, const at::Tensor& features) const {
  return classifier_(pass, pass.Dropout(features, dropout_));
}

std::vector<ArchitectureEntry> EfficientNetEntries() {
  ArgumentSpec type = {.name = "efficientnet_type",
                       .kind = ArgumentKind::kString,
                       .description =
                           "type, which scales b0's widths, depths, "
                           "resolution and dropout"};
  for (const EfficientNet::Scaling& scaling : kScalings) {
    type.choices.emplace_back(std::string(scaling.type));
  }
  return {{.name = "efficientnet",
           .description = "EfficientNet, scaled in width, depth and resolution",
           .source = "Tan and Le 2019, arXiv:1905.11946; Mammoth e75a491, "
                     "backbone/EfficientNet.py",
           .arguments = {NumClasses(), std::move(type)},
           .factory = [](const Arguments& arguments)
               -> std::shared_ptr<const Architecture> {
             return std::make_shared<const EfficientNet>(arguments);
           }}};
}

}  // namespace backboned
