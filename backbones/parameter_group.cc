#include "backbones/parameter_group.h"

#include <cmath>
#include <limits>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

// LibTorch refuses to step float32 by a larger number.
bool FitsFloat(double value) {
  return std::abs(value) <= std::numeric_limits<float>::max();  // NaN does not.
}

absl::Status CheckNotNegative(std::string_view name, double value) {
  if (FitsFloat(value) && value >= 0) return absl::OkStatus();
  return InvalidOption(
      absl::StrCat(std::string(name), " is ", value,
                   ", must be finite in float32 and at least 0"));
}

absl::Status CheckBeta(std::string_view name, double value) {
  if (value >= 0 && value < 1) return absl::OkStatus();
  return InvalidOption(
      absl::StrCat(std::string(name), " is ", value, ", must be in [0, 1)"));
}

absl::Status CheckSgd(const ParameterGroup& group) {
  absl::Status momentum = CheckNotNegative("momentum", group.momentum);
  if (!momentum.ok()) return momentum;
  if (!FitsFloat(group.dampening)) {
    return InvalidOption(absl::StrCat("dampening is ", group.dampening,
                                      ", must be finite in float32"));
  }
  if (group.nesterov && (group.momentum <= 0 || group.dampening != 0)) {
    return InvalidOption(absl::StrCat(
        "nesterov needs a momentum above 0 and dampening 0, they are ",
        group.momentum, " and ", group.dampening));
  }
  return absl::OkStatus();
}

absl::Status CheckAdam(const ParameterGroup& group) {
  absl::Status valid = CheckBeta("beta1", group.beta1);
  if (valid.ok()) valid = CheckBeta("beta2", group.beta2);
  if (valid.ok()) valid = CheckNotNegative("eps", group.eps);
  if (!valid.ok()) return valid;
  // The first step's factor, and the largest.
  return CheckNotNegative("lr / (1 - beta1)", group.lr / (1 - group.beta1));
}

// Returns the first setting that `kind` does not take; empty if there is none.
std::string_view ForeignSetting(OptimizerKind kind,
                                const GroupSettings& settings) {
  if (kind != OptimizerKind::kSgd) {
    if (settings.momentum.has_value()) return "momentum";
    if (settings.dampening.has_value()) return "dampening";
    return settings.nesterov.has_value() ? "nesterov" : "";
  }
  if (settings.beta1.has_value()) return "beta1";
  if (settings.beta2.has_value()) return "beta2";
  return settings.eps.has_value() ? "eps" : "";
}

}  // namespace

absl::Status CheckGroup(OptimizerKind kind, const ParameterGroup& group) {
  absl::Status valid = CheckNotNegative("lr", group.lr);
  if (valid.ok()) valid = CheckNotNegative("weight_decay", group.weight_decay);
  if (!valid.ok()) return valid;
  return kind == OptimizerKind::kSgd ? CheckSgd(group) : CheckAdam(group);
}

ParameterGroup WithSettings(ParameterGroup group,
                            const GroupSettings& settings) {
  group.weight_decay = settings.weight_decay.value_or(group.weight_decay);
  group.maximize = settings.maximize.value_or(group.maximize);
  group.momentum = settings.momentum.value_or(group.momentum);
  group.dampening = settings.dampening.value_or(group.dampening);
  group.nesterov = settings.nesterov.value_or(group.nesterov);
  group.beta1 = settings.beta1.value_or(group.beta1);
  group.beta2 = settings.beta2.value_or(group.beta2);
  group.eps = settings.eps.value_or(group.eps);
  return group;
}

absl::Status CheckTakes(OptimizerKind kind, const GroupSettings& settings) {
  const std::string_view foreign = ForeignSetting(kind, settings);
  if (foreign.empty()) return absl::OkStatus();
  return InvalidOption(
      absl::StrCat("the optimizer's kind takes no ", std::string(foreign)));
}

}  // namespace backboned
