// How an optimizer steps a group of parameters. The names are PyTorch's.

#ifndef BACKBONED_BACKBONES_PARAMETER_GROUP_H_
#define BACKBONED_BACKBONES_PARAMETER_GROUP_H_

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "backbones/selection.h"

namespace backboned {

enum class OptimizerKind { kSgd, kAdam, kAdamW };

// AdamW's weight decay unless the caller gives one; of the others it is 0.
inline constexpr double kAdamWWeightDecay = 0.01;

// Parameters that are stepped alike, and how.
struct ParameterGroup {
  // Null: all parameters. A step does not copy it.
  std::shared_ptr<const Selection> selection = nullptr;
  double lr = 1e-3;
  double weight_decay = 0;
  bool maximize = false;
  // SGD.
  double momentum = 0;
  double dampening = 0;
  bool nesterov = false;
  // Adam and AdamW.
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  bool amsgrad = false;
};

// Settings of a group that change; absent ones stay.
struct GroupSettings {
  std::optional<double> weight_decay = {};
  std::optional<bool> maximize = {};
  std::optional<double> momentum = {};
  std::optional<double> dampening = {};
  std::optional<bool> nesterov = {};
  std::optional<double> beta1 = {};
  std::optional<double> beta2 = {};
  std::optional<double> eps = {};
};

// Returns kInvalidArgument (kInvalidOption) if a number of `group` is out of
// the range that it has for `kind`.
absl::Status CheckGroup(OptimizerKind kind, const ParameterGroup& group);

// Returns kInvalidArgument (kInvalidOption) if there is a setting that `kind`
// does not take.
absl::Status CheckTakes(OptimizerKind kind, const GroupSettings& settings);

// Returns `group` with the settings that are not absent.
ParameterGroup WithSettings(ParameterGroup group,
                            const GroupSettings& settings);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_PARAMETER_GROUP_H_
