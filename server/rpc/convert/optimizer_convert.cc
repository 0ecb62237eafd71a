#include "server/rpc/convert/optimizer_convert.h"

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "server/memory/memory_allocator.h"
#include "server/memory/memory_room.h"
#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {
namespace {

absl::StatusOr<OptimizerKind> KindOf(v1::OptimizerKind kind) {
  switch (kind) {
    case v1::OPTIMIZER_KIND_SGD:
      return OptimizerKind::kSgd;
    case v1::OPTIMIZER_KIND_ADAM:
      return OptimizerKind::kAdam;
    case v1::OPTIMIZER_KIND_ADAMW:
      return OptimizerKind::kAdamW;
    default:
      return InvalidOption(
          absl::StrCat("optimizer kind ", static_cast<int>(kind),
                       " is unknown, expected SGD, ADAM or ADAMW"));
  }
}

// Returns the first number of a group that its optimizer does not take, or "".
std::string Foreign(OptimizerKind kind, const v1::ParameterGroup& group) {
  if (kind != OptimizerKind::kSgd) {
    if (group.momentum() != 0) return "momentum";
    if (group.dampening() != 0) return "dampening";
    return group.nesterov() ? "nesterov" : "";
  }
  if (group.has_beta1()) return "beta1";
  if (group.has_beta2()) return "beta2";
  if (group.has_eps()) return "eps";
  return group.amsgrad() ? "amsgrad" : "";
}

// Returns a selection that counts as the caller's memory while it is held;
// null: none.
std::shared_ptr<const Selection> SelectionOf(const v1::ParameterGroup& group) {
  struct Counted {
    Selection selection;
    std::shared_ptr<const void> count;
  };
  Selection selection = FromProto(group.selection());
  if (selection.globs.empty() && !selection.range.has_value()) return nullptr;
  size_t bytes = 0;
  for (const std::string& glob : selection.globs) {
    bytes += sizeof(glob) + glob.size();
  }
  const auto counted = std::make_shared<const Counted>(
      Counted{std::move(selection), CpuMemory().Count(bytes)});
  return {counted, &counted->selection};
}

ParameterGroup GroupOf(OptimizerKind kind, const v1::ParameterGroup& group) {
  ParameterGroup result = {.selection = SelectionOf(group),
                           .maximize = group.maximize(),
                           .momentum = group.momentum(),
                           .dampening = group.dampening(),
                           .nesterov = group.nesterov(),
                           .amsgrad = group.amsgrad()};
  if (kind == OptimizerKind::kAdamW) result.weight_decay = kAdamWWeightDecay;
  if (group.has_lr()) result.lr = group.lr();
  if (group.has_weight_decay()) result.weight_decay = group.weight_decay();
  if (group.has_beta1()) result.beta1 = group.beta1();
  if (group.has_beta2()) result.beta2 = group.beta2();
  if (group.has_eps()) result.eps = group.eps();
  return result;
}

GroupSettings SettingsOf(const v1::GroupSettings& settings) {
  GroupSettings result;
  if (settings.has_weight_decay()) {
    result.weight_decay = settings.weight_decay();
  }
  if (settings.has_maximize()) result.maximize = settings.maximize();
  if (settings.has_momentum()) result.momentum = settings.momentum();
  if (settings.has_dampening()) result.dampening = settings.dampening();
  if (settings.has_nesterov()) result.nesterov = settings.nesterov();
  if (settings.has_beta1()) result.beta1 = settings.beta1();
  if (settings.has_beta2()) result.beta2 = settings.beta2();
  if (settings.has_eps()) result.eps = settings.eps();
  return result;
}

v1::OptimizerKind ProtoKind(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::kSgd:
      return v1::OPTIMIZER_KIND_SGD;
    case OptimizerKind::kAdam:
      return v1::OPTIMIZER_KIND_ADAM;
    case OptimizerKind::kAdamW:
      return v1::OPTIMIZER_KIND_ADAMW;
  }
  return v1::OPTIMIZER_KIND_UNSPECIFIED;
}

v1::Selection ProtoSelection(const Selection& selection) {
  v1::Selection result;
  for (const std::string& glob : selection.globs) result.add_globs(glob);
  if (selection.range.has_value()) {
    result.mutable_range()->set_begin(selection.range->first);
    result.mutable_range()->set_end(selection.range->second);
  }
  return result;
}

v1::ParameterGroup ProtoGroup(OptimizerKind kind, const ParameterGroup& group) {
  v1::ParameterGroup result;
  if (group.selection != nullptr) {
    *result.mutable_selection() = ProtoSelection(*group.selection);
  }
  result.set_lr(group.lr);
  result.set_weight_decay(group.weight_decay);
  result.set_maximize(group.maximize);
  if (kind == OptimizerKind::kSgd) {
    result.set_momentum(group.momentum);
    result.set_dampening(group.dampening);
    result.set_nesterov(group.nesterov);
    return result;
  }
  result.set_beta1(group.beta1);
  result.set_beta2(group.beta2);
  result.set_eps(group.eps);
  result.set_amsgrad(group.amsgrad);
  return result;
}

}  // namespace

absl::StatusOr<OptimizerPtr> FromProto(const v1::Optimizer& optimizer,
                                       const Layout& layout) {
  absl::StatusOr<OptimizerKind> kind = KindOf(optimizer.kind());
  if (!kind.ok()) return kind.status();
  std::vector<ParameterGroup> groups;
  for (const v1::ParameterGroup& group : optimizer.groups()) {
    const std::string foreign = Foreign(*kind, group);
    if (!foreign.empty()) {
      return InvalidOption(
          absl::StrCat("group ", groups.size(), ": ",
                       v1::OptimizerKind_Name(optimizer.kind()).substr(15),
                       " takes no ", foreign));
    }
    groups.push_back(GroupOf(*kind, group));
  }
  return MakeOptimizer(*kind, std::move(groups), layout);
}

v1::Optimizer ToProto(const OptimizerState& optimizer) {
  v1::Optimizer result;
  result.set_kind(ProtoKind(optimizer.kind));
  for (const ParameterGroup& group : optimizer.groups) {
    *result.add_groups() = ProtoGroup(optimizer.kind, group);
  }
  return result;
}

StepOptions FromProto(const v1::StepOptions& options) {
  StepOptions result = {.lr = {options.lr().begin(), options.lr().end()},
                        .zero_after = options.zero_after()};
  if (options.has_clip_norm()) {
    const double norm_type = options.clip_norm().norm_type();
    result.clip_norm = ClipNorm{.max_norm = options.clip_norm().max_norm(),
                                .norm_type = norm_type == 0 ? 2 : norm_type};
  }
  if (options.has_clip_value()) result.clip_value = options.clip_value();
  for (const v1::GroupSettings& settings : options.settings()) {
    result.settings.push_back(SettingsOf(settings));
  }
  return result;
}

v1::StepResult ToProto(const StepOutput& output) {
  v1::StepResult result;
  if (output.grad_norm.has_value()) result.set_grad_norm(*output.grad_norm);
  result.set_stepped_count(output.stepped_count);
  return result;
}

}  // namespace backboned::rpc
