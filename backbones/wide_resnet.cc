#include "backbones/wide_resnet.h"

#include <ATen/ops/adaptive_avg_pool2d.h>
#include <ATen/ops/relu.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/image_input.h"

namespace backboned {
namespace {

constexpr int64_t kWideStemPlanes = 16;

// Returns the filters of the last stage.
int64_t FeatureDim(int64_t widen_factor) {
  return kWideStemPlanes * 4 * widen_factor;
}

}  // namespace

WideResNet::WideResNet(const Arguments& arguments)
    : WideResNet(arguments, std::get<int64_t>(arguments.at("num_classes")),
                 std::get<int64_t>(arguments.at("depth")),
                 std::get<int64_t>(arguments.at("widen_factor")),
                 std::get<double>(arguments.at("dropout"))) {}

WideResNet::WideResNet(const Arguments& arguments, int64_t num_classes,
                       int64_t depth, int64_t widen_factor, double dropout)
    : Architecture({.name = "wide-resnet",
                    .arguments = arguments,
                    .attributes = {{"num_classes", num_classes},
                                   {"feature_dim", FeatureDim(widen_factor)}},
                    .input_shape = {3, -1, -1},
                    .layer_count = 4,
                    .stochastic = dropout > 0}),
      dropout_(dropout),
      conv1_(declare(), "conv1", 3, kWideStemPlanes, Conv3x3(1)),
      stages_(DeclareStages(declare(), (depth - 4) / 6, widen_factor)),
      bn1_(declare(), "bn1", FeatureDim(widen_factor)),
      classifier_(declare_head(), "classifier", FeatureDim(widen_factor),
                  num_classes) {
  AddKaimingNormal(declare());
  declare().AddInitStep(classifier_.bias(), ConstantFill{0});
}

std::vector<WideResNet::Stage> WideResNet::DeclareStages(Layout& layout,
                                                         int64_t blocks,
                                                         int64_t widen_factor) {
  std::vector<Stage> stages;
  int64_t in_planes = kWideStemPlanes;
  int64_t planes = kWideStemPlanes * widen_factor;
  for (int64_t stride : {1, 2, 2}) {
    const std::string stage = absl::StrCat("layer", stages.size() + 1);
    stages.emplace_back();
    for (int64_t i = 0; i < blocks; ++i) {
      const std::string name = absl::StrCat(stage, ".", i);
      Block block = {
          .bn1 = BatchNorm2d(layout, name + ".bn1", in_planes),
          .conv1 = Conv2d(layout, name + ".conv1", in_planes, planes,
                          Conv3x3(stride)),
          .bn2 = BatchNorm2d(layout, name + ".bn2", planes),
          .conv2 = Conv2d(layout, name + ".conv2", planes, planes, Conv3x3(1)),
          .shortcut = std::nullopt};
      if (in_planes != planes || stride != 1) {
        block.shortcut.emplace(
            layout, name + ".shortcut", in_planes, planes,
            Conv2dOptions{.kernel_size = 1, .stride = stride});
      }
      stages.back().push_back(std::move(block));
      in_planes = planes;
      stride = 1;
    }
    planes *= 2;
  }
  return stages;
}

absl::Status WideResNet::CheckInput(std::span<const int64_t> shape,
                                    bool training) const {
  absl::Status images = CheckImages(shape);
  if (!images.ok()) return images;
  return CheckBatchNorm(shape, training, Halved(shape[2], 2),
                        Halved(shape[3], 2));
}

at::Tensor WideResNet::RunBlock(Pass& pass, const Block& block,
                                const at::Tensor& x) const {
  const at::Tensor in = at::relu(block.bn1(pass, x));
  at::Tensor out = at::relu(block.bn2(pass, block.conv1(pass, in)));
  out = block.conv2(pass, pass.Dropout(out, dropout_));
  return out.add_(block.shortcut ? (*block.shortcut)(pass, in) : x);
}

TrunkOutputs WideResNet::Trunk(Pass& pass, const at::Tensor& x) const {
  std::vector<at::Tensor> layers = {conv1_(pass, x)};
  for (const Stage& stage : stages_) {
    at::Tensor out = layers.back();
    for (const Block& block : stage) out = RunBlock(pass, block, out);
    layers.push_back(std::move(out));
  }
  const at::Tensor last = at::relu(bn1_(pass, layers.back()));
  return {.features = at::adaptive_avg_pool2d(last, {1, 1}).flatten(1),
          .layers = std::move(layers)};
}

at::Tensor WideResNet::Head(Pass& pass, const at::Tensor& features) const {
  return classifier_(pass, features);
}

std::vector<ArchitectureEntry> WideResNetEntries() {
  return {{.name = "wide-resnet",
           .description = "Wide residual network (WRN) for small images",
           .source = "Zagoruyko and Komodakis 2016, arXiv:1605.07146",
           .arguments = {NumClasses(),
                         {.name = "depth",
                          .default_value = 28,
                          .description = "layers, 6n + 4",
                          .minimum = 10,
                          .maximum = 100,
                          .step = 6},
                         {.name = "widen_factor",
                          .default_value = 10,
                          .description = "factor of the filters: the stages "
                                         "have 16, 32 and 64 times this",
                          .minimum = 1,
                          .maximum = 32},
                         {.name = "dropout",
                          .kind = ArgumentKind::kDouble,
                          .default_value = 0.0,
                          .description = "probability between the convolutions "
                                         "of a block, in training",
                          .minimum = 0,
                          .maximum = 1}},
           .factory = [](const Arguments& arguments)
               -> std::shared_ptr<const Architecture> {
             return std::make_shared<const WideResNet>(arguments);
           }}};
}

}  // namespace backboned
