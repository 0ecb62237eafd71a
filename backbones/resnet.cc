#include "backbones/resnet.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/relu.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/errors.h"

namespace backboned {
namespace {

// The last stage has so many times the filters of the stem.
constexpr int64_t kWidening = 8;

Conv2dOptions Conv3x3(int64_t stride) {
  return {.kernel_size = 3, .stride = stride, .padding = 1};
}

Conv2dOptions Conv1x1(int64_t stride) {
  return {.kernel_size = 1, .stride = stride, .padding = 0};
}

// The side of the last stage's maps: three 3x3 convolutions with stride 2.
int64_t LastSide(int64_t side) {
  for (int i = 0; i < 3; ++i) {
    side = (side - 1) / 2 + 1;
  }
  return side;
}

}  // namespace

BasicBlock::BasicBlock(Layout& layout, const std::string& name,
                       int64_t in_planes, int64_t planes, int64_t stride)
    : conv1_(layout, name + ".conv1", in_planes, planes, Conv3x3(stride)),
      bn1_(layout, name + ".bn1", planes),
      conv2_(layout, name + ".conv2", planes, planes, Conv3x3(1)),
      bn2_(layout, name + ".bn2", planes) {
  if (stride != 1 || in_planes != planes) {
    Conv2d conv(layout, name + ".shortcut.0", in_planes, planes,
                Conv1x1(stride));
    BatchNorm2d bn(layout, name + ".shortcut.1", planes);
    shortcut_ = Projection{.conv = conv, .bn = bn};
  }
}

at::Tensor BasicBlock::operator()(Pass& pass, const at::Tensor& x) const {
  at::Tensor out = at::relu(bn1_(pass, conv1_(pass, x)));
  out = bn2_(pass, conv2_(pass, out));
  // In place on a tensor of this pass, which no backward needs.
  out.add_(shortcut_ ? shortcut_->bn(pass, shortcut_->conv(pass, x)) : x);
  return at::relu(out);
}

ResNet::ResNet(const std::string& name, const Arguments& arguments,
               const BlockCounts& num_blocks)
    : ResNet(name, arguments, num_blocks,
             std::get<int64_t>(arguments.at("num_classes")),
             std::get<int64_t>(arguments.at("num_filters"))) {}

ResNet::ResNet(const std::string& name, const Arguments& arguments,
               const BlockCounts& num_blocks, int64_t num_classes, int64_t nf)
    : Architecture(
          {.name = name,
           .arguments = arguments,
           .attributes = {{"num_classes", num_classes},
                          {"feature_dim", kWidening * nf},
                          {"nf", nf},
                          {"in_planes", kWidening * nf}},
           .input_shape = {3, -1, -1},
           .layer_count = 1 + static_cast<int64_t>(num_blocks.size())}),
      conv1_(declare(), "conv1", 3, nf, Conv3x3(1)),
      bn1_(declare(), "bn1", nf),
      stages_(DeclareStages(declare(), num_blocks, nf)),
      classifier_(declare(), "classifier", kWidening * nf, num_classes) {}

std::vector<ResNet::Stage> ResNet::DeclareStages(Layout& layout,
                                                 const BlockCounts& num_blocks,
                                                 int64_t nf) {
  std::vector<Stage> stages;
  int64_t in_planes = nf;
  int64_t planes = nf;
  for (const int64_t count : num_blocks) {
    const bool first = stages.empty();
    const std::string name = absl::StrCat("layer", stages.size() + 1);
    Stage& stage = stages.emplace_back();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t stride = i == 0 && !first ? 2 : 1;
      stage.emplace_back(layout, absl::StrCat(name, ".", i), in_planes, planes,
                         stride);
      in_planes = planes;
    }
    planes *= 2;
  }
  return stages;
}

absl::Status ResNet::CheckInput(std::span<const int64_t> shape,
                                bool training) const {
  const auto mismatch = [&](const std::string& what) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
                 absl::StrCat("input has shape ", FormatShape(shape),
                              ", expected [N, 3, H, W]", what));
  };
  if (shape.size() != 4 || shape[1] != 3) {
    return mismatch("");
  }
  if (shape[0] < 1 || shape[2] < 1 || shape[3] < 1) {
    return mismatch(" with no size of 0");
  }
  const int64_t height = LastSide(shape[2]);
  const int64_t width = LastSide(shape[3]);
  if (width / height != 1) {
    return mismatch(absl::StrCat(" that pools to 1x1, but its last maps of ",
                                 height, "x", width, " pool to 1x",
                                 width / height));
  }
  if (training && shape[0] == 1 && height == 1 && width == 1) {
    return mismatch(
        " with more than one value a channel in the last maps, for BatchNorm");
  }
  return absl::OkStatus();
}

TrunkOutputs ResNet::Trunk(Pass& pass, const at::Tensor& x) const {
  std::vector<at::Tensor> layers = {at::relu(bn1_(pass, conv1_(pass, x)))};
  for (const Stage& stage : stages_) {
    at::Tensor out = layers.back();
    for (const BasicBlock& block : stage) {
      out = block(pass, out);
    }
    layers.push_back(std::move(out));
  }
  const at::Tensor& last = layers.back();
  const at::Tensor pooled = at::avg_pool2d(last, last.size(2));
  return {.features = pooled.view({pooled.size(0), -1}),
          .layers = std::move(layers)};
}

at::Tensor ResNet::Head(Pass& pass, const at::Tensor& features) const {
  return classifier_(pass, features);
}

ArchitectureEntry ResNet18Entry() {
  return {.name = "resnet18",
          .description =
              "Residual network of 18 layers with a 3x3 stem, for small images",
          .source =
              "He et al. 2016, arXiv:1512.03385; Mammoth e75a491, "
              "backbone/ResNetBlock.py",
          .arguments = {{.name = "num_classes",
                         .description = "number of logits",
                         .minimum = 1,
                         .maximum = 100'000},
                        {.name = "num_filters",
                         .default_value = 64,
                         .description =
                             "filters of the stem; later stages double them",
                         .minimum = 1,
                         .maximum = 512}},
          .factory = [](const Arguments& arguments)
              -> std::shared_ptr<const Architecture> {
            return std::make_shared<const ResNet>(
                "resnet18", arguments, ResNet::BlockCounts{2, 2, 2, 2});
          }};
}

}  // namespace backboned
