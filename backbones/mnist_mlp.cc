#include "backbones/mnist_mlp.h"

#include <ATen/ops/relu.h>

#include <cmath>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

constexpr int64_t kMnistSize = int64_t{28} * 28;
constexpr int64_t kPnnHiddenSize = 100;

// Declares xavier_uniform_ for the weight and zero for the bias, on top of the
// default initialisation.
void AddXavier(Layout& layout, const Linear& linear) {
  const std::vector<int64_t>& shape =
      layout.parameters()[linear.weight()].shape;
  const double deviation =
      std::sqrt(2.0 / static_cast<double>(shape[0] + shape[1]));
  const double bound = std::sqrt(3.0) * deviation;
  layout.AddInitStep(linear.weight(),
                     UniformDraw{.low = -bound, .high = bound});
  layout.AddInitStep(linear.bias(), ConstantFill{0});
}

// Declares the keys that Python's nested Sequentials add.
void AddAliases(Layout& layout, const Linear& linear,
                std::initializer_list<const char*> names) {
  for (const char* name : names) {
    layout.AddAlias(linear.weight(), absl::StrCat(name, ".weight"));
    layout.AddAlias(linear.bias(), absl::StrCat(name, ".bias"));
  }
}

int64_t NumClassesOf(const Arguments& arguments) {
  return std::get<int64_t>(arguments.at("num_classes"));
}

// Returns whether a sample of `shape`, whatever it is, has `expected` elements.
bool HasElements(std::span<const int64_t> shape, int64_t expected) {
  int64_t elements = 1;
  for (const int64_t size : shape) {
    if (size < 1 || size > expected / elements) {
      return false;
    }
    elements *= size;
  }
  return elements == expected;
}

// Declares the additional tensors of a later column in Python: the adaptors,
// and the earlier columns' first layers.
void DeclareLateral(Layout& layout, const MnistMlp::Design& design,
                    int64_t num_classes) {
  const int64_t hidden = design.hidden_size;
  const int64_t width = hidden * static_cast<int64_t>(design.earlier_columns);
  std::vector<std::pair<Linear, Linear>> bases;
  for (const auto& [base, out] :
       {std::pair("base_1", hidden), std::pair("base_2", num_classes)}) {
    const Linear first(layout, absl::StrCat(base, ".0"), width, hidden);
    const Linear second(layout, absl::StrCat(base, ".2"), hidden, out,
                        /*bias=*/false);
    bases.emplace_back(first, second);
  }
  for (size_t i = 0; i < bases.size(); ++i) {
    const std::string adaptor = absl::StrCat("adaptor", i + 1);
    const auto& [first, second] = bases[i];
    layout.AddAlias(first.weight(), adaptor + ".1.0.weight");
    layout.AddAlias(first.bias(), adaptor + ".1.0.bias");
    layout.AddAlias(second.weight(), adaptor + ".1.2.weight");
    layout.AddInitStep(layout.AddParameter(adaptor + ".0.alpha", {1, width}),
                       UniformDraw{.low = 0, .high = 1, .factor = 0.1});
  }
  for (size_t column = 0; column < design.earlier_columns; ++column) {
    const std::string fc1 = absl::StrCat("old_fc1s.", column, ".0");
    layout.BeginInherited(column, fc1, "fc1");
    const Linear first(layout, fc1, design.input_size, hidden);
    const std::string fc2 = absl::StrCat("old_fc2s.", column, ".0");
    layout.BeginInherited(column, fc2, "fc2");
    const Linear second(layout, fc2, hidden, hidden);
  }
}

}  // namespace

MnistMlp::MnistMlp(const Design& design, const Arguments& arguments)
    : Architecture({.name = design.name,
                    .arguments = arguments,
                    .attributes = {{"input_size", design.input_size},
                                   {"output_size", NumClassesOf(arguments)}},
                    .input_shape = {},
                    .layer_count = 2}),
      input_size_(design.input_size),
      fc1_(declare(), "fc1", design.input_size, design.hidden_size),
      fc2_(declare(), "fc2", design.hidden_size, design.hidden_size),
      classifier_(declare_head(), "classifier", design.hidden_size,
                  NumClassesOf(arguments)) {
  if (design.earlier_columns > 0) {
    DeclareLateral(declare(), design, NumClassesOf(arguments));
  }
  for (const Linear* linear : {&fc1_, &fc2_, &classifier_}) {
    AddXavier(declare(), *linear);
  }
  if (!design.has_aliases) return;
  AddAliases(declare(), fc1_, {"_features.0", "net.0.0"});
  AddAliases(declare(), fc2_, {"_features.2", "net.0.2"});
  AddAliases(declare(), classifier_, {"net.1"});
}

absl::Status MnistMlp::CheckInput(std::span<const int64_t> shape,
                                  bool /*training*/) const {
  if (shape.size() < 2 || shape[0] < 0 ||
      !HasElements(shape.subspan(1), input_size_)) {
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
        absl::StrCat("input has shape ", FormatShape(shape), ", expected ",
                     input_size_ == kMnistSize ? "[N, 1, 28, 28] or any other"
                                               : "any [N, ...]",
                     " with ", input_size_, " elements a sample"));
  }
  return absl::OkStatus();
}

TrunkOutputs MnistMlp::Trunk(Pass& pass, const at::Tensor& x) const {
  const at::Tensor flat = x.reshape({-1, input_size_});
  const at::Tensor hidden = at::relu(fc1_(pass, flat));
  const at::Tensor features = at::relu(fc2_(pass, hidden));
  return {.features = features, .layers = {hidden, features}};
}

at::Tensor MnistMlp::Head(Pass& pass, const at::Tensor& features) const {
  return classifier_(pass, features);
}

namespace {

ArchitectureEntry MlpEntry() {
  return {.name = "mnistmlp",
          .description =
              "Multi-layer perceptron with two hidden layers of ReLUs, for "
              "MNIST",
          .source = "Mammoth e75a491, backbone/MNISTMLP.py",
          .arguments = {NumClasses(),
                        {.name = "mlp_hidden_size",
                         .default_value = 100,
                         .description = "units of each hidden layer",
                         .minimum = 1,
                         .maximum = 16'384}},
          .factory = [](const Arguments& arguments)
              -> std::shared_ptr<const Architecture> {
            return std::make_shared<const MnistMlp>(
                MnistMlp::Design{.name = "mnistmlp",
                                 .input_size = kMnistSize,
                                 .hidden_size = std::get<int64_t>(
                                     arguments.at("mlp_hidden_size")),
                                 .has_aliases = true},
                arguments);
          }};
}

std::shared_ptr<const Architecture> MakeColumn(const Arguments& arguments,
                                               size_t earlier_columns) {
  return std::make_shared<const MnistMlp>(
      MnistMlp::Design{
          .name = "mnistmlp-pnn",
          .input_size = std::get<int64_t>(arguments.at("input_size")),
          .hidden_size = kPnnHiddenSize,
          .has_aliases = false,
          .earlier_columns = earlier_columns},
      arguments);
}

ArchitectureEntry PnnEntry() {
  return {.name = "mnistmlp-pnn",
          .description = "Column of a progressive network of perceptrons",
          .source =
              "Rusu et al. 2016, arXiv:1606.04671; Mammoth e75a491, "
              "backbone/MNISTMLP_PNN.py",
          .arguments = {NumClasses(),
                        {.name = "input_size",
                         .description = "elements of a sample",
                         .minimum = 1,
                         .maximum = 1'000'000}},
          .factory =
              [](const Arguments& arguments) {
                return MakeColumn(arguments, /*earlier_columns=*/0);
              },
          .later_columns = LaterColumns{.common_arguments = {"input_size"},
                                        .factory = MakeColumn}};
}

}  // namespace

std::vector<ArchitectureEntry> MnistMlpEntries() {
  return {MlpEntry(), PnnEntry()};
}

}  // namespace backboned
