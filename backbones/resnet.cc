#include "backbones/resnet.h"

#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/max_pool2d.h>
#include <ATen/ops/relu.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/image_input.h"

namespace backboned {
namespace {

// The filters of the last stage, as a multiple of the stem's.
constexpr int64_t kWidening = 8;

Conv2dOptions Conv1x1(int64_t stride) {
  return {.kernel_size = 1, .stride = stride, .padding = 0};
}

Conv2dOptions Stem(bool large) {
  return large ? Conv2dOptions{.kernel_size = 7, .stride = 2, .padding = 3}
               : Conv3x3(1);
}

bool ChangesShape(int64_t in_planes, int64_t planes, int64_t stride) {
  return stride != 1 || in_planes != planes;
}

}  // namespace

BasicBlock::BasicBlock(Layout& layout, const std::string& name,
                       int64_t in_planes, int64_t planes, int64_t stride)
    : conv1_(layout, name + ".conv1", in_planes, planes, Conv3x3(stride)),
      bn1_(layout, name + ".bn1", planes),
      conv2_(layout, name + ".conv2", planes, planes, Conv3x3(1)),
      bn2_(layout, name + ".bn2", planes) {
  if (ChangesShape(in_planes, planes, stride)) {
    Conv2d conv(layout, name + ".shortcut.0", in_planes, planes,
                Conv1x1(stride));
    BatchNorm2d bn(layout, name + ".shortcut.1", planes);
    shortcut_ = Projection{.conv = conv, .bn = bn};
  }
}

BlockOutput BasicBlock::operator()(Pass& pass, const at::Tensor& x) const {
  at::Tensor out = at::relu(bn1_(pass, conv1_(pass, x)));
  out = bn2_(pass, conv2_(pass, out));
  // In place on a tensor of this pass, which no backward needs.
  out.add_(shortcut_ ? shortcut_->bn(pass, shortcut_->conv(pass, x)) : x);
  return {.out = at::relu(out), .prerelu = out};
}

PreActBlock::PreActBlock(Layout& layout, const std::string& name,
                         int64_t in_planes, int64_t planes, int64_t stride)
    : bn1_(layout, name + ".bn1", in_planes),
      conv1_(layout, name + ".conv1", in_planes, planes, Conv3x3(stride)),
      bn2_(layout, name + ".bn2", planes),
      conv2_(layout, name + ".conv2", planes, planes, Conv3x3(1)) {
  if (ChangesShape(in_planes, planes, stride)) {
    shortcut_.emplace(layout, name + ".shortcut.0", in_planes, planes,
                      Conv1x1(stride));
  }
}

BlockOutput PreActBlock::operator()(Pass& pass, const at::Tensor& x) const {
  const at::Tensor in = at::relu(bn1_(pass, x));
  const at::Tensor shortcut = shortcut_ ? (*shortcut_)(pass, in) : in;
  at::Tensor out = conv1_(pass, in);
  out = conv2_(pass, at::relu(bn2_(pass, out)));
  out.add_(shortcut);
  return {.out = out, .prerelu = {}};
}

ResNet::ResNet(const std::string& name, const Arguments& arguments,
               const ResNetDesign& design)
    : ResNet(name, arguments, design,
             std::get<int64_t>(arguments.at("num_classes")),
             std::get<int64_t>(arguments.at("num_filters"))) {}

ResNet::ResNet(const std::string& name, const Arguments& arguments,
               const ResNetDesign& design, int64_t num_classes, int64_t nf)
    : Architecture(
          {.name = name,
           .arguments = arguments,
           .attributes = {{"num_classes", num_classes},
                          {"feature_dim", kWidening * nf},
                          {"nf", nf},
                          {"in_planes", kWidening * nf}},
           .input_shape = {3, -1, -1},
           .layer_count = 1 + static_cast<int64_t>(design.num_blocks.size()),
           .has_prerelu = !design.preact}),
      design_(design),
      conv1_(declare(), "conv1", 3, nf, Stem(design.large_stem)),
      bn1_(declare(), "bn1", nf),
      stages_(DeclareStages(declare(), design, nf)),
      classifier_(declare_head(), "classifier", kWidening * nf, num_classes) {}

std::vector<ResNet::Stage> ResNet::DeclareStages(Layout& layout,
                                                 const ResNetDesign& design,
                                                 int64_t nf) {
  std::vector<Stage> stages;
  int64_t in_planes = nf;
  int64_t planes = nf;
  for (const int64_t count : design.num_blocks) {
    const bool first = stages.empty();
    const std::string stage_name = absl::StrCat("layer", stages.size() + 1);
    Stage& stage = stages.emplace_back();
    for (int64_t i = 0; i < count; ++i) {
      const int64_t stride = i == 0 && !first ? 2 : 1;
      const std::string name =
          absl::StrCat(stage_name, ".", design.counts_relus ? 2 * i : i);
      if (design.preact) {
        stage.emplace_back(
            PreActBlock(layout, name, in_planes, planes, stride));
      } else {
        stage.emplace_back(BasicBlock(layout, name, in_planes, planes, stride));
      }
      in_planes = planes;
    }
    planes *= 2;
  }
  return stages;
}

absl::Status ResNet::CheckInput(std::span<const int64_t> shape,
                                bool training) const {
  absl::Status images = CheckImages(shape);
  if (!images.ok()) return images;
  const int halvings = design_.large_stem ? 5 : 3;
  const int64_t height = Halved(shape[2], halvings);
  const int64_t width = Halved(shape[3], halvings);
  if (width / height != 1) {
    return ImageMismatch(
        shape, absl::StrCat(" whose last maps pool to 1x1; these, of ", height,
                            "x", width, ", pool to 1x", width / height));
  }
  return CheckBatchNorm(shape, training, height, width);
}

TrunkOutputs ResNet::Trunk(Pass& pass, const at::Tensor& x) const {
  const bool prerelu = pass.flags().prerelu;
  const at::Tensor stem = bn1_(pass, conv1_(pass, x));
  at::Tensor out = at::relu(stem);
  if (design_.large_stem) {
    out = at::max_pool2d(out, /*kernel_size=*/3, /*stride=*/2, /*padding=*/1);
  }
  std::vector<at::Tensor> layers = {prerelu ? stem : out};
  for (const Stage& stage : stages_) {
    BlockOutput last;
    for (const Block& block : stage) {
      last = std::visit([&](const auto& run) { return run(pass, out); }, block);
      out = last.out;
    }
    layers.push_back(prerelu ? last.prerelu : out);
  }
  const at::Tensor pooled = at::avg_pool2d(out, out.size(2));
  return {.features = pooled.view({pooled.size(0), -1}),
          .layers = std::move(layers)};
}

at::Tensor ResNet::Head(Pass& pass, const at::Tensor& features) const {
  return classifier_(pass, features);
}

namespace {

ArchitectureEntry Entry(const std::string& name, const std::string& description,
                        int64_t num_filters, const ResNetDesign& design) {
  return {.name = name,
          .description = description,
          .source =
              "He et al. 2016, arXiv:1512.03385; Mammoth e75a491, "
              "backbone/ResNetBlock.py",
          .arguments = {NumClasses(),
                        {.name = "num_filters",
                         .default_value = num_filters,
                         .description =
                             "filters of the stem; later stages double them",
                         .minimum = 1,
                         .maximum = 512}},
          .factory = [name, design](const Arguments& arguments)
              -> std::shared_ptr<const Architecture> {
            return std::make_shared<const ResNet>(name, arguments, design);
          }};
}

}  // namespace

std::vector<ArchitectureEntry> ResNetEntries() {
  std::vector<ArchitectureEntry> entries = {
      Entry("resnet18",
            "Residual network of 18 layers with a 3x3 stem, for small images",
            64, {}),
      Entry("reduced-resnet18", "resnet18 of 20 filters", 20, {}),
      Entry("preact-resnet18",
            "resnet18 with BatchNorm and ReLU before each convolution", 64,
            {.preact = true}),
      Entry("resnet34",
            "Residual network of 34 layers with a 3x3 stem, for small images",
            64, {.num_blocks = {3, 4, 6, 3}}),
      Entry("resnet18-spr",
            "resnet18 with a 7x7 stem and max pooling, for large images", 64,
            {.large_stem = true}),
      Entry("resnet18-7x7-pt",
            "resnet18-spr, which Mammoth loads with ImageNet weights", 64,
            {.large_stem = true})};
  entries.back().pretrained = true;
  return entries;
}

}  // namespace backboned
