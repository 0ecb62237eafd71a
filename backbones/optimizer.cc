#include "backbones/optimizer.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_addcdiv.h>
#include <ATen/ops/_foreach_addcmul.h>
#include <ATen/ops/_foreach_clamp_max.h>
#include <ATen/ops/_foreach_clamp_min.h>
#include <ATen/ops/_foreach_div.h>
#include <ATen/ops/_foreach_lerp.h>
#include <ATen/ops/_foreach_maximum.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_neg.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_sqrt.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backbones/dtypes.h"
#include "base/errors.h"

namespace backboned {
namespace {

// The order of Adam's slots.
constexpr size_t kStep = 0;
constexpr size_t kExpAvg = 1;
constexpr size_t kExpAvgSq = 2;
constexpr size_t kMaxExpAvgSq = 3;

absl::Status NameGroup(size_t group, const absl::Status& status) {
  return PrefixMessage(absl::StrCat("group ", group), status);
}

absl::Status CheckPositive(std::string_view name, double value) {
  if (value > 0) return absl::OkStatus();  // False for NaN.
  return InvalidOption(
      absl::StrCat(std::string(name), " is ", value, ", must be above 0"));
}

absl::Status CheckGlobs(const std::vector<ParameterGroup>& groups) {
  size_t count = 0;
  size_t bytes = 0;
  for (const ParameterGroup& group : groups) {
    if (group.selection == nullptr) continue;
    count += group.selection->globs.size();
    for (const std::string& glob : group.selection->globs) bytes += glob.size();
  }
  if (count > kMaxGroupGlobs) {
    return InvalidOption(absl::StrCat("the groups have ", count,
                                      " patterns, at most ", kMaxGroupGlobs,
                                      " are allowed"));
  }
  if (bytes > kMaxGroupGlobBytes) {
    return InvalidOption(absl::StrCat("the groups' patterns have ", bytes,
                                      " bytes, at most ", kMaxGroupGlobBytes,
                                      " are allowed"));
  }
  return absl::OkStatus();
}

absl::Status CheckCount(std::string_view what, size_t count, size_t groups) {
  if (count == 0 || count == groups) return absl::OkStatus();
  return InvalidOption(absl::StrCat(std::string(what), " has ", count,
                                    " values, expected ", groups,
                                    ", one for each group of the optimizer"));
}

// Returns group `g` with its learning rate and settings of `options`.
ParameterGroup GroupOf(const OptimizerState& optimizer,
                       const StepOptions& options, size_t g) {
  ParameterGroup group = optimizer.groups[g];
  if (!options.lr.empty()) group.lr = options.lr[g];
  if (options.settings.empty()) return group;
  return WithSettings(std::move(group), options.settings[g]);
}

// Checks the learning rates and settings of `options`.
absl::Status CheckGroups(const OptimizerState& optimizer,
                         const StepOptions& options) {
  const size_t groups = optimizer.groups.size();
  absl::Status valid = CheckCount("lr", options.lr.size(), groups);
  if (!valid.ok()) return valid;
  valid = CheckCount("settings", options.settings.size(), groups);
  if (!valid.ok()) return valid;
  for (size_t g = 0; g < groups; ++g) {
    if (!options.settings.empty()) {
      valid = CheckTakes(optimizer.kind, options.settings[g]);
    }
    if (valid.ok()) {
      valid = CheckGroup(optimizer.kind, GroupOf(optimizer, options, g));
    }
    if (!valid.ok()) return NameGroup(g, valid);
  }
  return absl::OkStatus();
}

// Returns the parameters of a group, none of them cut.
absl::StatusOr<std::vector<Slice>> SelectGroup(const ParameterGroup& group,
                                               const Layout& layout) {
  absl::StatusOr<std::vector<Slice>> slices = SelectWholeParameters(
      group.selection == nullptr ? Selection() : *group.selection, layout);
  if (slices.ok() && slices->empty()) {
    return InvalidOption("the group's selection selects no parameter");
  }
  return slices;
}

using Tensors = std::vector<at::Tensor>;

// The parameters of one group that a step changes with one call of each
// operator. `grads` and each of `slots` are in the order of `params`.
struct Batch {
  Tensors params;
  Tensors grads;
  std::vector<Tensors> slots;  // None before the first step.
};

void StepSgd(const ParameterGroup& group, Batch& batch) {
  Tensors grads = std::move(batch.grads);
  if (group.maximize) grads = at::_foreach_neg(grads);
  if (group.weight_decay != 0) {
    grads = at::_foreach_add(grads, batch.params, group.weight_decay);
  }
  if (group.momentum != 0) {
    if (batch.slots.empty()) {
      batch.slots = {grads};
    } else {
      batch.slots[0] = at::_foreach_mul(batch.slots[0], group.momentum);
      at::_foreach_add_(batch.slots[0], grads, 1 - group.dampening);
    }
    grads = group.nesterov
                ? at::_foreach_add(grads, batch.slots[0], group.momentum)
                : batch.slots[0];
  }
  batch.params = at::_foreach_add(batch.params, grads, -group.lr);
}

std::vector<Tensors> FreshAdamSlots(const ParameterGroup& group,
                                    const Tensors& params) {
  std::vector<Tensors> slots(group.amsgrad ? 4 : 3);
  for (const at::Tensor& param : params) {
    slots[kStep].push_back(at::zeros({}, at::kFloat));
    for (size_t s = kExpAvg; s < slots.size(); ++s) {
      slots[s].push_back(at::zeros_like(param));
    }
  }
  return slots;
}

// Steps by Adam or, with `decoupled` weight decay, AdamW.
void StepAdam(const ParameterGroup& group, bool decoupled, Batch& batch) {
  Tensors grads = std::move(batch.grads);
  std::vector<Tensors>& slots = batch.slots;
  if (group.maximize) grads = at::_foreach_neg(grads);
  if (slots.empty()) slots = FreshAdamSlots(group, batch.params);
  slots[kStep] = at::_foreach_add(slots[kStep], 1);
  if (group.weight_decay != 0 && decoupled) {
    batch.params =
        at::_foreach_mul(batch.params, 1 - group.lr * group.weight_decay);
  } else if (group.weight_decay != 0) {
    grads = at::_foreach_add(grads, batch.params, group.weight_decay);
  }
  slots[kExpAvg] = at::_foreach_lerp(slots[kExpAvg], grads, 1 - group.beta1);
  slots[kExpAvgSq] = at::_foreach_mul(slots[kExpAvgSq], group.beta2);
  at::_foreach_addcmul_(slots[kExpAvgSq], grads, grads, 1 - group.beta2);

  // In double precision, as in Python. The steps are the host's, and may
  // differ: a parameter without a gradient is passed over.
  std::vector<at::Scalar> step_sizes;
  std::vector<at::Scalar> bias_corrections2_sqrt;
  for (const at::Tensor& count : slots[kStep]) {
    const auto step = static_cast<double>(count.item<float>());
    const double bias_correction1 = 1 - std::pow(group.beta1, step);
    const double bias_correction2 = 1 - std::pow(group.beta2, step);
    step_sizes.emplace_back(-(group.lr / bias_correction1));
    bias_corrections2_sqrt.emplace_back(std::pow(bias_correction2, 0.5));
  }
  if (group.amsgrad) {
    slots[kMaxExpAvgSq] =
        at::_foreach_maximum(slots[kMaxExpAvgSq], slots[kExpAvgSq]);
  }
  const Tensors denominators =
      at::_foreach_sqrt(slots[group.amsgrad ? kMaxExpAvgSq : kExpAvgSq]);
  at::_foreach_div_(denominators, bias_corrections2_sqrt);
  at::_foreach_add_(denominators, group.eps);
  batch.params = at::_foreach_addcdiv(batch.params, slots[kExpAvg],
                                      denominators, step_sizes);
}

// Returns the parameters that a step changes, in layout order.
std::vector<size_t> SteppedParameters(const State& state,
                                      const std::vector<bool>& trained) {
  std::vector<size_t> stepped;
  for (size_t i = 0; i < state.params.size(); ++i) {
    if (state.optimizer->group_of[i].has_value() && state.grads[i].defined() &&
        (trained.empty() || trained[i])) {
      stepped.push_back(i);
    }
  }
  return stepped;
}

// Splits the places of `stepped` into lists that step together. On a GPU they
// are those of one group and dtype with equally many slots, since a launch
// costs more than the work of a small parameter. On a CPU each is alone, since
// what one operator wrote is in the cache for the next one.
std::vector<std::vector<size_t>> Batches(const State& state,
                                         std::span<const size_t> stepped) {
  const OptimizerState& optimizer = *state.optimizer;
  std::vector<std::vector<size_t>> batches;
  std::map<std::tuple<size_t, at::ScalarType, size_t>, size_t> known;
  for (size_t place = 0; place < stepped.size(); ++place) {
    const size_t i = stepped[place];
    size_t batch = batches.size();
    if (!state.params[i].is_cpu()) {
      batch = known
                  .try_emplace({optimizer.group_of[i].value(),
                                state.params[i].scalar_type(),
                                optimizer.slots[i].size()},
                               batch)
                  .first->second;
    }
    if (batch == batches.size()) batches.emplace_back();
    batches[batch].push_back(place);
  }
  return batches;
}

// Steps the parameters at `places` of `stepped`, which are of one group, in
// `next` and `optimizer`. `grads` are in the order of `stepped`.
void StepTogether(std::span<const size_t> stepped,
                  std::span<const size_t> places, const Tensors& grads,
                  State& next, OptimizerState& optimizer) {
  Batch batch;
  for (const size_t place : places) {
    const size_t i = stepped[place];
    batch.params.push_back(next.params[i]);
    batch.grads.push_back(grads[place]);
    batch.slots.resize(optimizer.slots[i].size());
    for (size_t s = 0; s < batch.slots.size(); ++s) {
      batch.slots[s].push_back(optimizer.slots[i][s]);
    }
  }
  const ParameterGroup& group =
      optimizer.groups[optimizer.group_of[stepped[places[0]]].value()];
  if (optimizer.kind == OptimizerKind::kSgd) {
    StepSgd(group, batch);
  } else {
    StepAdam(group, optimizer.kind == OptimizerKind::kAdamW, batch);
  }
  for (size_t n = 0; n < places.size(); ++n) {
    const size_t i = stepped[places[n]];
    next.params[i] = std::move(batch.params[n]);
    optimizer.slots[i].resize(batch.slots.size());
    for (size_t s = 0; s < batch.slots.size(); ++s) {
      optimizer.slots[i][s] = std::move(batch.slots[s][n]);
    }
  }
}

// Clips `grads` as `torch.nn.utils.clip_grad_norm_` does; returns the norm
// before that, a scalar.
at::Tensor ClipByNorm(const ClipNorm& clip, Tensors& grads) {
  const at::Tensor norm = at::linalg_vector_norm(
      at::stack(at::_foreach_norm(grads, clip.norm_type)), clip.norm_type);
  // Python divides a number by a tensor in this way.
  const at::Tensor scale =
      norm.add(1e-6).reciprocal().mul(clip.max_norm).clamp_max(1.0);
  grads = at::_foreach_mul(grads, scale);
  return norm;
}

void ClipByValue(double value, Tensors& grads) {
  if (!grads[0].is_cpu()) {
    grads = at::_foreach_clamp_min(grads, -value);
    at::_foreach_clamp_max_(grads, value);
    return;
  }
  for (at::Tensor& grad : grads) {
    grad = grad.clamp_min(-value).clamp_max_(value);
  }
}

}  // namespace

std::vector<std::string_view> SlotNames(OptimizerKind kind,
                                        const ParameterGroup& group) {
  if (kind == OptimizerKind::kSgd) return {"momentum_buffer"};
  std::vector<std::string_view> names = {kStepSlot, "exp_avg", "exp_avg_sq"};
  if (group.amsgrad) names.push_back("max_exp_avg_sq");
  return names;
}

absl::StatusOr<OptimizerPtr> MakeOptimizer(OptimizerKind kind,
                                           std::vector<ParameterGroup> groups,
                                           const Layout& layout) {
  if (groups.empty()) return InvalidOption("the optimizer has no group");
  absl::Status few = CheckGlobs(groups);
  if (!few.ok()) return few;
  OptimizerState optimizer = {.kind = kind};
  optimizer.group_of.resize(layout.parameters().size());
  optimizer.slots.resize(layout.parameters().size());
  for (size_t g = 0; g < groups.size(); ++g) {
    absl::Status valid = NameGroup(g, CheckGroup(kind, groups[g]));
    if (!valid.ok()) return valid;
    absl::StatusOr<std::vector<Slice>> slices = SelectGroup(groups[g], layout);
    if (!slices.ok()) return NameGroup(g, slices.status());
    for (const Slice& slice : *slices) {
      std::optional<size_t>& group = optimizer.group_of[slice.index];
      if (group.has_value()) {
        return InvalidOption(absl::StrCat(
            "parameter ", Quote(layout.parameters()[slice.index].name),
            " is in group ", *group, " and in group ", g));
      }
      group = g;
    }
  }
  optimizer.groups = std::move(groups);
  return std::make_shared<const OptimizerState>(std::move(optimizer));
}

absl::Status CheckOptimizable(const State& state) {
  for (const at::Tensor& param : state.params) {
    const at::ScalarType dtype = param.scalar_type();
    if (dtype == at::kFloat || dtype == at::kDouble) continue;
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kReadOnly,
                 absl::StrCat("the parameters are ", DtypeName(dtype),
                              "; an optimizer needs float32 or float64"));
  }
  return absl::OkStatus();
}

absl::Status CheckStep(const State& state, const StepOptions& options) {
  if (state.optimizer == nullptr) {
    return Error(
        absl::StatusCode::kFailedPrecondition, Reason::kNoOptimizer,
        "the instance has no optimizer; call ConfigureOptimizer first");
  }
  absl::Status fits = CheckGroups(*state.optimizer, options);
  if (!fits.ok()) return fits;
  if (options.clip_norm.has_value()) {
    absl::Status valid = CheckPositive("max_norm", options.clip_norm->max_norm);
    if (!valid.ok()) return valid;
    return CheckPositive("norm_type", options.clip_norm->norm_type);
  }
  if (options.clip_value.has_value()) {
    if (std::isfinite(*options.clip_value) &&
        *options.clip_value > std::numeric_limits<float>::max()) {
      return InvalidOption(
          absl::StrCat("clip_value is ", *options.clip_value,
                       ", which is finite, but not in float32"));
    }
    return CheckPositive("clip_value", *options.clip_value);
  }
  return absl::OkStatus();
}

absl::StatusOr<StepOutput> Step(const State& state, const StepOptions& options,
                                const std::vector<bool>& trained) {
  absl::Status valid = CheckStep(state, options);
  if (!valid.ok()) return valid;
  const std::vector<size_t> stepped = SteppedParameters(state, trained);
  if (stepped.empty()) {
    return Error(absl::StatusCode::kFailedPrecondition, Reason::kNoGradients,
                 "no parameter that the optimizer steps has a gradient; run a "
                 "backward with accumulate");
  }
  StepOutput output = {.stepped_count = static_cast<int64_t>(stepped.size())};
  Tensors grads;
  for (const size_t i : stepped) grads.push_back(state.grads[i]);
  at::Tensor norm;
  if (options.clip_norm.has_value()) {
    norm = ClipByNorm(*options.clip_norm, grads);
  } else if (options.clip_value.has_value()) {
    ClipByValue(*options.clip_value, grads);
  }

  State next = state;
  OptimizerState optimizer = *state.optimizer;
  for (size_t g = 0; g < optimizer.groups.size(); ++g) {
    optimizer.groups[g] = GroupOf(*state.optimizer, options, g);
  }
  for (const std::vector<size_t>& places : Batches(state, stepped)) {
    StepTogether(stepped, places, grads, next, optimizer);
  }
  ++next.params_version;
  next.grads_changes = 0;
  if (options.zero_after) next.grads.assign(next.params.size(), at::Tensor());
  next.optimizer = std::make_shared<const OptimizerState>(std::move(optimizer));
  output.state = std::make_shared<const State>(std::move(next));
  // Last, since this waits for the device.
  if (norm.defined()) output.grad_norm = norm.item<double>();
  return output;
}

StatePtr WithOptimizer(const State& state, OptimizerPtr optimizer) {
  State next = state;
  next.optimizer = std::move(optimizer);
  return std::make_shared<const State>(std::move(next));
}

}  // namespace backboned
