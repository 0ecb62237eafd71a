#include "backbones/bottleneck_resnet.h"

#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/image_input.h"

namespace backboned {
namespace {

constexpr int64_t kStemPlanes = 64;
constexpr int64_t kExpansion = 4;
constexpr int64_t kFeatures = 512 * kExpansion;

}  // namespace

at::Tensor BottleneckResNet::Unit::operator()(Pass& pass,
                                              const at::Tensor& x) const {
  return bn(pass, conv(pass, x));
}

BottleneckResNet::BottleneckResNet(const std::string& name,
                                   const Arguments& arguments,
                                   const BlockCounts& num_blocks)
    : BottleneckResNet(name, arguments, num_blocks,
                       std::get<int64_t>(arguments.at("num_classes")),
                       std::get<int64_t>(arguments.at("width_per_group"))) {}

BottleneckResNet::BottleneckResNet(const std::string& name,
                                   const Arguments& arguments,
                                   const BlockCounts& num_blocks,
                                   int64_t num_classes, int64_t base_width)
    : Architecture({.name = name,
                    .arguments = arguments,
                    .attributes = {{"num_classes", num_classes},
                                   {"feature_dim", kFeatures},
                                   {"inplanes", kFeatures}},
                    .input_shape = {3, -1, -1},
                    .layer_count = 1 + static_cast<int64_t>(num_blocks.size()),
                    .has_prerelu = true}),
      conv1_(declare(), "conv1", 3, kStemPlanes,
             {.kernel_size = 7, .stride = 2, .padding = 3}),
      bn1_(declare(), "bn1", kStemPlanes),
      stages_(DeclareStages(declare(), num_blocks, base_width)),
      classifier_(declare_head(), "classifier", kFeatures, num_classes) {
  // Python makes a block's shortcut before the rest of the block. The order
  // does not matter, since a default draw only advances the generator.
  AddKaimingNormal(declare());
}

BottleneckResNet::Block BottleneckResNet::DeclareBlock(
    Layout& layout, const std::string& name, int64_t in_planes, int64_t planes,
    int64_t width, int64_t stride) {
  const auto unit = [&](const std::string& conv, const std::string& bn,
                        int64_t in, int64_t out, const Conv2dOptions& options) {
    Conv2d convolution(layout, absl::StrCat(name, ".", conv), in, out, options);
    BatchNorm2d norm(layout, absl::StrCat(name, ".", bn), out);
    return Unit{.conv = convolution, .bn = norm};
  };
  const int64_t out_planes = planes * kExpansion;
  Block block = {
      .units = {unit("conv1", "bn1", in_planes, width, {.kernel_size = 1}),
                unit("conv2", "bn2", width, width,
                     {.kernel_size = 3, .stride = stride, .padding = 1}),
                unit("conv3", "bn3", width, out_planes, {.kernel_size = 1})}};
  if (stride != 1 || in_planes != out_planes) {
    block.downsample = unit("downsample.0", "downsample.1", in_planes,
                            out_planes, {.kernel_size = 1, .stride = stride});
  }
  return block;
}

std::vector<BottleneckResNet::Stage> BottleneckResNet::DeclareStages(
    Layout& layout, const BlockCounts& num_blocks, int64_t base_width) {
  std::vector<Stage> stages;
  int64_t in_planes = kStemPlanes;
  int64_t planes = kStemPlanes;
  for (const int64_t count : num_blocks) {
    const bool first = stages.empty();
    const std::string stage = absl::StrCat("layer", stages.size() + 1);
    stages.emplace_back();
    for (int64_t i = 0; i < count; ++i) {
      stages.back().push_back(DeclareBlock(
          layout, absl::StrCat(stage, ".", i), in_planes, planes,
          planes * base_width / kStemPlanes, i == 0 && !first ? 2 : 1));
      in_planes = planes * kExpansion;
    }
    planes *= 2;
  }
  return stages;
}

absl::Status BottleneckResNet::CheckInput(std::span<const int64_t> shape,
                                          bool training) const {
  absl::Status images = CheckImages(shape);
  if (!images.ok()) return images;
  return CheckBatchNorm(shape, training, Halved(shape[2], 5),
                        Halved(shape[3], 5));
}

at::Tensor BottleneckResNet::RunBlock(Pass& pass, const Block& block,
                                      const at::Tensor& x) {
  at::Tensor out = at::relu(block.units[0](pass, x));
  out = at::relu(block.units[1](pass, out));
  out = block.units[2](pass, out);
  // In place on a tensor of this pass, which no backward needs.
  return out.add_(block.downsample ? (*block.downsample)(pass, x) : x);
}

TrunkOutputs BottleneckResNet::Trunk(Pass& pass, const at::Tensor& x) const {
  const bool prerelu = pass.flags().prerelu;
  const at::Tensor stem = bn1_(pass, conv1_(pass, x));
  at::Tensor out = at::max_pool2d(at::relu(stem), /*kernel_size=*/3,
                                  /*stride=*/2, /*padding=*/1);
  std::vector<at::Tensor> layers = {prerelu ? stem : out};
  for (const Stage& stage : stages_) {
    at::Tensor last;
    for (const Block& block : stage) {
      last = RunBlock(pass, block, out);
      out = at::relu(last);
    }
    layers.push_back(prerelu ? last : out);
  }
  return {.features = at::adaptive_avg_pool2d(out, {1, 1}).flatten(1),
          .layers = std::move(layers)};
}

at::Tensor BottleneckResNet::Head(Pass& pass,
                                  const at::Tensor& features) const {
  return classifier_(pass, features);
}

namespace {

ArchitectureEntry Entry(const std::string& name, const std::string& description,
                        const BottleneckResNet::BlockCounts& num_blocks) {
  return {.name = name,
          .description = description,
          .source =
              "He et al. 2016, arXiv:1512.03385; Mammoth e75a491, "
              "backbone/ResNetBottleneck.py",
          .arguments = {NumClasses(),
                        {.name = "width_per_group",
                         .default_value = 64,
                         .description = "filters of the first 3x3 "
                                        "convolutions; 128: Wide ResNet-50-2",
                         .minimum = 1,
                         .maximum = 512}},
          .factory = [name, num_blocks](const Arguments& arguments)
              -> std::shared_ptr<const Architecture> {
            return std::make_shared<const BottleneckResNet>(name, arguments,
                                                            num_blocks);
          }};
}

}  // namespace

std::vector<ArchitectureEntry> BottleneckResNetEntries() {
  std::vector<ArchitectureEntry> entries = {
      Entry("resnet50", "Residual network of 50 layers, for large images",
            {3, 4, 6, 3}),
      Entry("resnet50-pt",
            "resnet50, which Mammoth loads with ImageNet weights",
            {3, 4, 6, 3}),
      Entry("resnet101", "Residual network of 101 layers, for large images",
            {3, 4, 23, 3}),
      Entry("resnet152", "Residual network of 152 layers, for large images",
            {3, 8, 36, 3})};
  entries[1].pretrained = true;
  return entries;
}

}  // namespace backboned
