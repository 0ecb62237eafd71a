#include "backbones/resnet32.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/relu.h>

#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/image_input.h"

namespace backboned {
namespace {

constexpr int64_t kResNet32StemPlanes = 16;
constexpr int64_t kResNet32Features = 64;
constexpr int64_t kPool = 8;
constexpr BatchNorm2dOptions kResNet32BatchNorm = {.eps = 1e-4};

// Declares Mammoth's draws on top of the default ones: all convolutions in
// order, then the classifier.
void AddDraws(Layout& layout, const Linear& classifier) {
  for (size_t i = 0; i < layout.parameters().size(); ++i) {
    const std::vector<int64_t>& shape = layout.parameters()[i].shape;
    if (shape.size() != 4) continue;
    const auto inputs = static_cast<double>(shape[1] * shape[2] * shape[3]);
    layout.AddInitStep(
        i, NormalDraw{.std = std::sqrt(2.0) * std::sqrt(1.0 / inputs)});
  }
  layout.AddInitStep(classifier.weight(),
                     NormalDraw{.std = std::sqrt(1.0 / kResNet32Features)});
  layout.AddInitStep(classifier.bias(), ConstantFill{0});
}

// Returns every second pixel, with empty maps on both sides of those of `x`.
at::Tensor Shortcut(const at::Tensor& x, int64_t planes) {
  const int64_t pad = planes / 4;
  const at::Tensor pixels =
      x.slice(2, 0, std::nullopt, 2).slice(3, 0, std::nullopt, 2);
  return at::constant_pad_nd(pixels, {0, 0, 0, 0, pad, pad});
}

}  // namespace

ResNet32::ResNet32(const Arguments& arguments)
    : ResNet32(arguments, std::get<int64_t>(arguments.at("num_classes")),
               std::get<int64_t>(arguments.at("depth"))) {}

ResNet32::ResNet32(const Arguments& arguments, int64_t num_classes,
                   int64_t depth)
    : Architecture({.name = "resnet32",
                    .arguments = arguments,
                    .attributes = {{"inplanes", kResNet32Features}},
                    .input_shape = {3, 32, 32},
                    .layer_count = 4}),
      conv1_(declare(), "conv1", 3, kResNet32StemPlanes, Conv3x3(1)),
      bn_initial_(declare(), "bn_initial", kResNet32StemPlanes,
                  kResNet32BatchNorm),
      stages_(DeclareStages(declare(), (depth - 2) / 6)),
      bn_final_(declare(), "bn_final", kResNet32Features, kResNet32BatchNorm),
      classifier_(declare_head(), "classifier", kResNet32Features,
                  num_classes) {
  AddDraws(declare(), classifier_);
}

std::vector<ResNet32::Stage> ResNet32::DeclareStages(Layout& layout,
                                                     int64_t blocks) {
  std::vector<Stage> stages;
  int64_t in_planes = kResNet32StemPlanes;
  for (const int64_t planes : {16, 32, 64}) {
    const std::string stage = absl::StrCat("layer", stages.size() + 1);
    stages.emplace_back();
    for (int64_t i = 0; i < blocks; ++i) {
      const std::string name = absl::StrCat(stage, ".", i);
      const int64_t stride = in_planes == planes ? 1 : 2;
      stages.back().push_back(
          {.conv1 = Conv2d(layout, name + ".conv1", in_planes, planes,
                           Conv3x3(stride)),
           .bn1 =
               BatchNorm2d(layout, name + ".bn1", planes, kResNet32BatchNorm),
           .conv2 = Conv2d(layout, name + ".conv2", planes, planes, Conv3x3(1)),
           .bn2 =
               BatchNorm2d(layout, name + ".bn2", planes, kResNet32BatchNorm),
           .stride = stride,
           .planes = planes});
      in_planes = planes;
    }
  }
  return stages;
}

absl::Status ResNet32::CheckInput(std::span<const int64_t> shape,
                                  bool /*training*/) const {
  absl::Status images = CheckImages(shape);
  if (!images.ok()) return images;
  const int64_t height = Halved(shape[2], 2) / kPool;
  const int64_t width = Halved(shape[3], 2) / kPool;
  if (height == 1 && width == 1) return absl::OkStatus();
  return ImageMismatch(
      shape, absl::StrCat(" with H = W = 32 (29 to 60 pool to 1x1, these to ",
                          height, "x", width, ")"));
}

at::Tensor ResNet32::RunBlock(Pass& pass, const Block& block,
                              const at::Tensor& x, bool last) {
  at::Tensor out = block.bn1(pass, at::relu(block.conv1(pass, x)));
  out = block.bn2(pass, block.conv2(pass, out));
  out.add_(block.stride == 1 ? x : Shortcut(x, block.planes));
  return last ? out : at::relu(out);
}

TrunkOutputs ResNet32::Trunk(Pass& pass, const at::Tensor& x) const {
  std::vector<at::Tensor> layers = {
      bn_initial_(pass, at::relu(conv1_(pass, x)))};
  for (const Stage& stage : stages_) {
    at::Tensor out = layers.back();
    for (const Block& block : stage) {
      out = RunBlock(pass, block, out, &block == &stages_.back().back());
    }
    layers.push_back(std::move(out));
  }
  const at::Tensor pooled = at::avg_pool2d(layers.back(), kPool);
  return {.features = pooled.view({pooled.size(0), -1}),
          .layers = std::move(layers)};
}

at::Tensor ResNet32::Head(Pass& pass, const at::Tensor& features) const {
  return classifier_(pass, features);
}

std::vector<ArchitectureEntry> ResNet32Entries() {
  return {{.name = "resnet32",
           .description = "iCaRL's residual network for 32x32 images",
           .source = "Rebuffi et al. 2017, arXiv:1611.07725; Mammoth e75a491, "
                     "backbone/ResNet32.py",
           .arguments = {NumClasses(),
                         {.name = "depth",
                          .default_value = 32,
                          .description = "layers, 6n + 2",
                          .minimum = 8,
                          .maximum = 1202,
                          .step = 6}},
           .factory = [](const Arguments& arguments)
               -> std::shared_ptr<const Architecture> {
             return std::make_shared<const ResNet32>(arguments);
           }}};
}

}  // namespace backboned
