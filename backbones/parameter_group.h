// The settings by which an optimizer steps a group. Names are PyTorch's.

#ifndef BACKBONED_BACKBONES_PARAMETER_GROUP_H_
#define BACKBONED_BACKBONES_PARAMETER_GROUP_H_

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "backbones/selection.h"

namespace backboned {

enum class OptimizerKind { kSgd, kAdam, kAdamW };

// AdamW's default weight decay; that of the others is 0.
inline constexpr double kAdamWWeightDecay = 0.01;

// Parameters with the same settings, and the settings.
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

// Changes of a group's settings; absent ones stay.
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
// its range for `kind`.
absl::Status CheckGroup(OptimizerKind kind, const ParameterGroup& group);

// Returns kInvalidArgument (kInvalidOption) if `kind` does not take one of
// `settings`.
absl::Status CheckTakes(OptimizerKind kind, const GroupSettings& settings);

// Returns `group` with those of `settings` that are present.
ParameterGroup WithSettings(ParameterGroup group,
                            const GroupSettings& settings);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_PARAMETER_GROUP_H_
