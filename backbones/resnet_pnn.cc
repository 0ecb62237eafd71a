#include "backbones/resnet_pnn.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/avg_pool2d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/relu.h>

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/image_input.h"
#include "base/errors.h"

namespace backboned {
namespace {

constexpr size_t kPnnStages = 4;
// The filters of the last stage, as a multiple of the stem's.
constexpr int64_t kPnnWidening = 8;
constexpr Conv2dOptions kAdaptorConv = {.kernel_size = 1, .bias = true};

int64_t IntArgument(const Arguments& arguments, const char* name) {
  return std::get<int64_t>(arguments.at(name));
}

// Returns the planes after stage `index`.
int64_t PlanesOf(int64_t nf, size_t index) { return nf << index; }

// Declares further keys of a module under another name.
void AddModuleAlias(Layout& layout, const std::string& name,
                    const std::string& alias) {
  for (size_t i = 0; i < layout.parameters().size(); ++i) {
    const std::string key = layout.parameters()[i].name;
    if (key.starts_with(name + ".")) {
      layout.AddAlias(i, alias + key.substr(name.size()));
    }
  }
}

}  // namespace

at::Tensor ResNetColumn::Adaptor::operator()(Pass& pass,
                                             const at::Tensor& x) const {
  return at::relu(conv(pass, x.mul(pass.parameter(alpha))));
}

ResNetColumn::ResNetColumn(const Arguments& arguments, size_t earlier)
    : ResNetColumn(arguments, earlier, IntArgument(arguments, "num_classes"),
                   IntArgument(arguments, "num_filters"),
                   IntArgument(arguments, "img_size")) {}

ResNetColumn::ResNetColumn(const Arguments& arguments, size_t earlier,
                           int64_t num_classes, int64_t nf, int64_t img_size)
    : Architecture({.name = "resnet18-pnn",
                    .arguments = arguments,
                    .attributes = {{"num_classes", num_classes},
                                   {"feature_dim",
                                    kPnnWidening * nf *
                                        static_cast<int64_t>(earlier + 1)},
                                   {"nf", nf},
                                   {"in_planes", kPnnWidening * nf}},
                    .input_shape = {3, img_size, img_size},
                    .layer_count = 1 + kPnnStages}),
      img_size_(img_size),
      feature_dim_(kPnnWidening * nf),
      conv1_(declare(), "conv1", 3, nf, Conv3x3(1)),
      bn1_(declare(), "bn1", nf),
      stages_(DeclareStages(declare(), nf)),
      classifier_(declare(), "classifier", feature_dim_, num_classes),
      lateral_classifier_(declare(), "lateral_classifier", feature_dim_,
                          num_classes),
      adaptor4_(DeclareAdaptor(declare(), "adaptor4", feature_dim_,
                               static_cast<int64_t>(earlier), /*side=*/1)),
      laterals_(DeclareLaterals(declare(), nf, static_cast<int64_t>(earlier),
                                img_size)),
      earlier_(DeclareEarlier(declare(), nf, earlier)) {}

ResNetColumn::Stage ResNetColumn::DeclareStage(Layout& layout,
                                               const std::string& name,
                                               int64_t in_planes,
                                               int64_t planes) {
  // Python counts the ReLUs between and behind the blocks.
  const int64_t stride = in_planes == planes ? 1 : 2;
  Stage stage;
  stage.emplace_back(layout, name + ".0", in_planes, planes, stride);
  stage.emplace_back(layout, name + ".2", planes, planes, 1);
  return stage;
}

std::vector<ResNetColumn::Stage> ResNetColumn::DeclareStages(Layout& layout,
                                                             int64_t nf) {
  std::vector<Stage> stages;
  for (size_t i = 0; i < kPnnStages; ++i) {
    stages.push_back(DeclareStage(layout, absl::StrCat("layer", i + 1),
                                  PlanesOf(nf, i == 0 ? 0 : i - 1),
                                  PlanesOf(nf, i)));
  }
  return stages;
}

ResNetColumn::Adaptor ResNetColumn::DeclareAdaptor(Layout& layout,
                                                   const std::string& name,
                                                   int64_t planes,
                                                   int64_t earlier,
                                                   int64_t side) {
  const size_t alpha =
      layout.AddParameter(name + ".0.alpha", {1, planes * earlier, side, side});
  layout.AddInitStep(alpha, UniformDraw{.low = 0, .high = 1, .factor = 0.1});
  return {.alpha = alpha,
          .conv = Conv2d(layout, name + ".1", planes * earlier, planes,
                         kAdaptorConv)};
}

std::vector<ResNetColumn::Lateral> ResNetColumn::DeclareLaterals(
    Layout& layout, int64_t nf, int64_t earlier, int64_t img_size) {
  std::vector<Lateral> laterals;
  for (size_t i = 1; i < kPnnStages; ++i) {
    const int64_t planes = PlanesOf(nf, i - 1);
    const std::string name = absl::StrCat("lateral_layer", i + 1);
    const std::string adaptor = absl::StrCat("adaptor", i);
    Stage stage = DeclareStage(layout, name, planes, 2 * planes);
    laterals.push_back(
        {.stage = std::move(stage),
         .adaptor = DeclareAdaptor(layout, adaptor, planes, earlier,
                                   img_size >> (i - 1))});
    AddModuleAlias(layout, name, adaptor + ".3");
  }
  return laterals;
}

std::vector<ResNetColumn::EarlierColumn> ResNetColumn::DeclareEarlier(
    Layout& layout, int64_t nf, size_t earlier) {
  std::vector<EarlierColumn> columns;
  for (size_t column = 0; column < earlier; ++column) {
    const std::string name = absl::StrCat("old_layer0s.", column);
    layout.BeginInherited(column, name, "conv1");
    columns.push_back(
        {.conv1 = Conv2d(layout, name, 3, nf, Conv3x3(1)), .stages = {}});
  }
  for (size_t i = 0; i < kPnnStages; ++i) {
    for (size_t column = 0; column < earlier; ++column) {
      const std::string name = absl::StrCat("old_layer", i + 1, "s.", column);
      layout.BeginInherited(column, name, absl::StrCat("layer", i + 1));
      columns[column].stages.push_back(DeclareStage(
          layout, name, PlanesOf(nf, i == 0 ? 0 : i - 1), PlanesOf(nf, i)));
    }
  }
  return columns;
}

absl::Status ResNetColumn::CheckInput(std::span<const int64_t> shape,
                                      bool training) const {
  absl::Status images = CheckImages(shape);
  if (!images.ok()) return images;
  if (shape[2] != img_size_ || shape[3] != img_size_) {
    return ImageMismatch(shape, absl::StrCat(" with H = W = ", img_size_));
  }
  const int64_t side = Halved(img_size_, 3);
  return CheckBatchNorm(shape, training, side, side);
}

at::Tensor ResNetColumn::RunStage(Pass& pass, const Stage& stage,
                                  const at::Tensor& x) {
  at::Tensor out = x;
  for (const BasicBlock& block : stage) out = block(pass, out).out;
  return out;
}

std::vector<at::Tensor> ResNetColumn::RunEarlier(Pass& pass,
                                                 const at::Tensor& x) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> maps;
  for (const EarlierColumn& column : earlier_) {
    maps.push_back(at::relu(bn1_(pass, column.conv1(pass, x))));
  }
  std::vector<at::Tensor> joined;
  for (size_t i = 0; i < kPnnStages; ++i) {
    for (size_t column = 0; column < earlier_.size(); ++column) {
      maps[column] = RunStage(pass, earlier_[column].stages[i], maps[column]);
    }
    joined.push_back(at::cat(maps, 1));
  }
  return joined;
}

TrunkOutputs ResNetColumn::Trunk(Pass& pass, const at::Tensor& x) const {
  const std::vector<at::Tensor> earlier = RunEarlier(pass, x);
  at::Tensor out = at::relu(bn1_(pass, conv1_(pass, x)));
  std::vector<at::Tensor> layers = {out};
  for (size_t i = 0; i < kPnnStages; ++i) {
    if (i == 0) {
      out = RunStage(pass, stages_[i], out);
    } else {
      const Lateral& lateral = laterals_[i - 1];
      const at::Tensor adapted =
          RunStage(pass, lateral.stage, lateral.adaptor(pass, earlier[i - 1]));
      out = at::relu(RunStage(pass, stages_[i], out).add(adapted));
    }
    layers.push_back(out);
  }
  const at::Tensor own = at::avg_pool2d(out, out.size(2)).flatten(1);
  const at::Tensor others =
      at::avg_pool2d(earlier.back(), out.size(2)).flatten(1);
  return {.features = at::cat({own, others}, 1), .layers = std::move(layers)};
}

at::Tensor ResNetColumn::Head(Pass& pass, const at::Tensor& features) const {
  const int64_t others = features.size(1) - feature_dim_;
  const at::Tensor own = features.narrow(1, 0, feature_dim_).contiguous();
  // The earlier columns get no gradient, so that the gradient of this column's
  // features keeps its bits, down to the sign of a zero.
  const at::Tensor maps = features.detach()
                              .narrow(1, feature_dim_, others)
                              .reshape({features.size(0), others, 1, 1});
  const at::Tensor adapted = adaptor4_(pass, maps).flatten(1);
  return classifier_(pass, own).add(lateral_classifier_(pass, adapted));
}

namespace {

absl::Status CheckLaterColumn(const Arguments& arguments) {
  if (IntArgument(arguments, "img_size") > 0) return absl::OkStatus();
  return InvalidOption(
      "argument img_size is 0; a later column needs the side of its images");
}

}  // namespace

std::vector<ArchitectureEntry> ResNetPnnEntries() {
  return {
      {.name = "resnet18-pnn",
       .description = "Column of a progressive network of resnet18s",
       .source = "Rusu et al. 2016, arXiv:1606.04671; Mammoth e75a491, "
                 "backbone/ResNet18_PNN.py",
       .arguments = {NumClasses(),
                     {.name = "num_filters",
                      .default_value = 64,
                      .description =
                          "filters of the stem; later stages double them",
                      .minimum = 1,
                      .maximum = 512},
                     {.name = "img_size",
                      .default_value = 0,
                      .description = "side of the images for a later column; "
                                     "a first column takes any",
                      .minimum = 0,
                      .maximum = 2048,
                      .step = 4}},
       .factory = [](const Arguments& arguments)
           -> std::shared_ptr<const Architecture> {
         return std::make_shared<const ResNet>(
             "resnet18-pnn", arguments, ResNetDesign{.counts_relus = true});
       },
       .later_columns = LaterColumns{
           .common_arguments = {"num_filters"},
           .factory = [](const Arguments& arguments, size_t earlier)
               -> std::shared_ptr<const Architecture> {
             return std::make_shared<const ResNetColumn>(arguments, earlier);
           },
           .check = CheckLaterColumn}}};
}

}  // namespace backboned
