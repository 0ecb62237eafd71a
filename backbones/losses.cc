#include "backbones/losses.h"

#include <ATen/core/Reduction.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/kl_div.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

absl::Status ShapeMismatch(const std::string& message) {
  return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
               message);
}

absl::Status DtypeMismatch(const std::string& message) {
  return Error(absl::StatusCode::kInvalidArgument, Reason::kDtypeMismatch,
               message);
}

// Checks a term of each kind without values.
class TermCheck {
 public:
  explicit TermCheck(int64_t rows) : rows_(rows) {}

  absl::Status operator()(const CrossEntropy& loss) const {
    if (!(loss.label_smoothing >= 0 && loss.label_smoothing <= 1)) {
      return InvalidOption(absl::StrCat(
          "label_smoothing is ", loss.label_smoothing, ", must be in [0, 1]"));
    }
    if (loss.label_smoothing > 0 && !loss.class_mask.empty()) {
      return InvalidOption("label_smoothing cannot be used with class_mask");
    }
    if (loss.labels.dim() != 1 || loss.labels.size(0) != rows_) {
      return ShapeMismatch(absl::StrCat("the labels have shape ",
                                        FormatShape(Shape(loss.labels)),
                                        ", expected [", rows_, "]"));
    }
    if (loss.labels.scalar_type() == at::kLong) return absl::OkStatus();
    return DtypeMismatch("the labels must be int64");
  }

  absl::Status operator()(const MeanSquaredError& loss) const {
    return CheckTarget(loss.target);
  }

  absl::Status operator()(const KlDivergence& loss) const {
    if (!(loss.temperature > 0 && std::isfinite(loss.temperature))) {
      return InvalidOption(absl::StrCat("temperature is ", loss.temperature,
                                        ", must be finite and above 0"));
    }
    return CheckTarget(loss.target);
  }

 private:
  static std::span<const int64_t> Shape(const at::Tensor& tensor) {
    return {tensor.sizes().data(), tensor.sizes().size()};
  }

  absl::Status CheckTarget(const at::Tensor& target) const {
    if (target.dim() != 2 || target.size(0) != rows_) {
      return ShapeMismatch(absl::StrCat("the target has shape ",
                                        FormatShape(Shape(target)),
                                        ", expected [", rows_, ", K]"));
    }
    const at::ScalarType dtype = target.scalar_type();
    if (dtype == at::kFloat || dtype == at::kDouble) return absl::OkStatus();
    return DtypeMismatch("the target must be float32 or float64");
  }

  int64_t rows_;
};

absl::Status CheckTerm(const LossTerm& term, int64_t rows) {
  if (term.row_begin < 0 || term.row_begin >= term.row_end ||
      term.row_end > rows) {
    return InvalidOption(absl::StrCat(
        "rows [", term.row_begin, ", ", term.row_end,
        ") are not within a batch of ", rows, rows == 1 ? " row" : " rows"));
  }
  if (!std::isfinite(term.weight)) {
    return InvalidOption(
        absl::StrCat("weight is ", term.weight, ", must be finite"));
  }
  return std::visit(TermCheck(term.row_end - term.row_begin), term.loss);
}

// Checks a term's values of each kind against the number of classes.
class ClassCheck {
 public:
  explicit ClassCheck(int64_t classes) : classes_(classes) {}

  absl::Status operator()(const CrossEntropy& loss) const {
    const auto mask_size = static_cast<int64_t>(loss.class_mask.size());
    if (mask_size != 0 && mask_size != classes_) {
      return ShapeMismatch(absl::StrCat("class_mask has ", mask_size,
                                        " values, expected ", classes_,
                                        ", one for each class"));
    }
    const std::span<const int64_t> labels(
        loss.labels.const_data_ptr<int64_t>(),
        static_cast<size_t>(loss.labels.numel()));
    for (const int64_t label : labels) {
      absl::Status valid = CheckLabel(label, loss.class_mask);
      if (!valid.ok()) return valid;
    }
    if (std::ranges::count(labels, kIgnoredLabel) == std::ssize(labels)) {
      return InvalidOption(absl::StrCat(
          "all labels are ", kIgnoredLabel,
          ", which is ignored; give at least one label of a class"));
    }
    return absl::OkStatus();
  }

  absl::Status operator()(const MeanSquaredError& loss) const {
    return CheckTarget(loss.target);
  }

  absl::Status operator()(const KlDivergence& loss) const {
    return CheckTarget(loss.target);
  }

 private:
  absl::Status CheckLabel(int64_t label, const std::vector<bool>& mask) const {
    if (label == kIgnoredLabel) return absl::OkStatus();
    if (label < 0 || label >= classes_) {
      return InvalidOption(
          absl::StrCat("label ", label, " is not in [0, ", classes_, ")"));
    }
    if (!mask.empty() && !mask[static_cast<size_t>(label)]) {
      return InvalidOption(
          absl::StrCat("label ", label, " is excluded by class_mask"));
    }
    return absl::OkStatus();
  }

  absl::Status CheckTarget(const at::Tensor& target) const {
    if (target.size(1) == classes_) return absl::OkStatus();
    return ShapeMismatch(absl::StrCat("the target has ", target.size(1),
                                      " columns, expected ", classes_,
                                      ", one for each class"));
  }

  int64_t classes_;
};

// Computes the term of each kind for its rows of the logits, with their graph.
class TermLoss {
 public:
  explicit TermLoss(at::Tensor logits) : logits_(std::move(logits)) {}

  at::Tensor operator()(const CrossEntropy& loss) const {
    const at::Tensor logits =
        loss.class_mask.empty()
            ? logits_
            : logits_.masked_fill(LeftOut(loss.class_mask),
                                  -std::numeric_limits<double>::infinity());
    return at::cross_entropy_loss(logits, Uploaded(loss.labels),
                                  /*weight=*/{}, at::Reduction::Mean,
                                  kIgnoredLabel, loss.label_smoothing);
  }

  at::Tensor operator()(const MeanSquaredError& loss) const {
    return at::mse_loss(logits_, AsLogits(loss.target));
  }

  at::Tensor operator()(const KlDivergence& loss) const {
    const at::Tensor ours =
        at::log_softmax(logits_.div(loss.temperature), /*dim=*/1);
    const at::Tensor theirs =
        at::softmax(AsLogits(loss.target).div(loss.temperature), /*dim=*/1);
    return at::kl_div(ours, theirs, at::Reduction::Sum).div(logits_.size(0));
  }

 private:
  // Returns the classes that do not count, [K] bool, on the logits' device.
  at::Tensor LeftOut(const std::vector<bool>& mask) const {
    at::Tensor left_out = at::empty({std::ssize(mask)}, at::kBool);
    std::ranges::transform(mask, left_out.mutable_data_ptr<bool>(),
                           [](bool counts) { return !counts; });
    return Uploaded(left_out);
  }

  at::Tensor AsLogits(const at::Tensor& target) const {
    return Uploaded(target).to(logits_.scalar_type());
  }

  // Returns a tensor on the logits' device, without a wait for earlier work.
  // Memory that is pinned may be read later, so the terms must live until the
  // device has done the work.
  at::Tensor Uploaded(const at::Tensor& tensor) const {
    return tensor.to(logits_.device(), /*non_blocking=*/true);
  }

  at::Tensor logits_;
};

}  // namespace

absl::Status CheckTerms(std::span<const LossTerm> terms, int64_t rows) {
  if (terms.empty())
    return InvalidOption("the header has no loss term; give at least one");
  for (size_t i = 0; i < terms.size(); ++i) {
    absl::Status valid =
        PrefixMessage(absl::StrCat("term ", i), CheckTerm(terms[i], rows));
    if (!valid.ok()) return valid;
  }
  return absl::OkStatus();
}

absl::Status CheckClasses(std::span<const LossTerm> terms, int64_t classes) {
  for (size_t i = 0; i < terms.size(); ++i) {
    absl::Status valid =
        PrefixMessage(absl::StrCat("term ", i),
                      std::visit(ClassCheck(classes), terms[i].loss));
    if (!valid.ok()) return valid;
  }
  return absl::OkStatus();
}

LossOutput ComputeLoss(std::span<const LossTerm> terms,
                       const at::Tensor& logits) {
  const at::AutoGradMode grad_mode(true);
  LossOutput output;
  for (const LossTerm& term : terms) {
    const int64_t count = term.row_end - term.row_begin;
    const at::Tensor rows = count == logits.size(0)
                                ? logits
                                : logits.narrow(0, term.row_begin, count);
    const at::Tensor loss = std::visit(TermLoss(rows), term.loss);
    output.losses.push_back(loss.detach());
    const at::Tensor weighted =
        term.weight == 1.0 ? loss : loss.mul(term.weight);
    output.sum = output.sum.defined() ? output.sum.add(weighted) : weighted;
  }
  return output;
}

LossValues ReadLoss(const LossOutput& loss) {
  std::vector<at::Tensor> scalars = loss.losses;
  scalars.push_back(loss.sum.detach());
  if (!loss.sum.is_cpu()) {  // All in one copy.
    scalars = at::stack(scalars).to(at::kCPU).unbind();
  }
  LossValues values;
  for (const at::Tensor& scalar : scalars) {
    values.losses.push_back(scalar.item<double>());
  }
  values.loss = values.losses.back();
  values.losses.pop_back();
  return values;
}

}  // namespace backboned
