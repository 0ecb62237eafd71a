// Computes losses of logits, as `torch.nn.functional` does.

#ifndef BACKBONED_BACKBONES_LOSSES_H_
#define BACKBONED_BACKBONES_LOSSES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "absl/status/status.h"

namespace backboned {

// The label that PyTorch ignores in the mean (its `ignore_index`).
inline constexpr int64_t kIgnoredLabel = -100;

// `cross_entropy(logits, labels, label_smoothing=...)`.
struct CrossEntropy {
  at::Tensor labels;  // [rows] int64: classes, or kIgnoredLabel.
  // By class: the logits of false ones become -inf. Empty: all count.
  std::vector<bool> class_mask = {};
  double label_smoothing = 0;
};

// `mse_loss(logits, target)`.
struct MeanSquaredError {
  at::Tensor target;  // [rows, K] float32 or float64.
};

// `kl_div(log_softmax(logits / T), softmax(target / T), "batchmean")`.
struct KlDivergence {
  at::Tensor target;  // [rows, K] float32 or float64: logits.
  double temperature = 1;
};

// A loss of some rows of a batch, and its weight in the sum.
struct LossTerm {
  int64_t row_begin = 0;
  int64_t row_end = 0;  // One past the last.
  double weight = 1;
  std::variant<CrossEntropy, MeanSquaredError, KlDivergence> loss;
};

// Returns kInvalidArgument, which names the term, unless there is a term and
// each has rows within a batch of `rows`, labels or a target for them, of its
// dtype, and numbers in their ranges. Does not look at tensors' values.
absl::Status CheckTerms(std::span<const LossTerm> terms, int64_t rows);

// Returns kInvalidArgument, which names the term, unless checked terms, with
// tensors on the CPU, fit logits of `classes` classes. They do not if a label
// is no class or excluded by the mask, all labels are ignored, a mask is used
// with label smoothing, or a target or mask has another number of classes.
absl::Status CheckClasses(std::span<const LossTerm> terms, int64_t classes);

struct LossOutput {
  std::vector<at::Tensor> losses;  // By term, before its weight: scalars.
  at::Tensor sum;  // Their weighted sum, added in their order, with its graph.
};

// Computes the sum of checked terms for `logits` [N, K], and its graph if they
// have one. The terms' tensors may be on any device.
LossOutput ComputeLoss(std::span<const LossTerm> terms,
                       const at::Tensor& logits);

struct LossValues {
  std::vector<double> losses;  // By term, before its weight.
  double loss = 0;             // Their weighted sum.
};

// Reads the values, and so waits for the device.
LossValues ReadLoss(const LossOutput& loss);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_LOSSES_H_
