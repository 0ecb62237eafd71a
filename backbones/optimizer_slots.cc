#include "backbones/optimizer_slots.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {

std::vector<std::string> SlotTensorNames(const OptimizerState& optimizer,
                                         const Layout& layout,
                                         size_t parameter) {
  std::vector<std::string> names;
  const std::optional<size_t> group = optimizer.group_of[parameter];
  if (!group.has_value()) return names;
  for (const std::string_view slot :
       SlotNames(optimizer.kind, optimizer.groups[*group])) {
    names.push_back(absl::StrCat(layout.parameters()[parameter].name, "/",
                                 std::string(slot)));
  }
  return names;
}

SlotPlan::SlotPlan(const OptimizerState& optimizer, const Layout& layout,
                   const State& state)
    : slots_(layout.parameters().size()) {
  const at::Tensor scalar = at::empty({}, at::kFloat);
  const std::string step = absl::StrCat("/", std::string(kStepSlot));
  for (size_t p = 0; p < slots_.size(); ++p) {
    for (std::string& name : SlotTensorNames(optimizer, layout, p)) {
      const bool counts = name.ends_with(step);
      slots_[p].push_back({.name = std::move(name),
                           .model = counts ? scalar : state.params[p],
                           .added = std::nullopt});
    }
  }
}

absl::StatusOr<at::Tensor> SlotPlan::Add(std::string_view name) {
  for (std::vector<Slot>& slots : slots_) {
    const auto slot = std::ranges::find(slots, name, &Slot::name);
    if (slot == slots.end()) continue;
    if (slot->added.has_value()) {
      return InvalidOption(
          absl::StrCat("the header has two tensors ", Quote(name)));
    }
    slot->added = models_.size();
    return models_.emplace_back(slot->model);
  }
  return InvalidOption(absl::StrCat("the optimizer's state has no tensor ",
                                    Quote(name),
                                    "; see GetOptimizerState for its tensors"));
}

absl::Status SlotPlan::CheckComplete() const {
  const auto added = [](const Slot& slot) { return slot.added.has_value(); };
  for (const std::vector<Slot>& slots : slots_) {
    if (std::ranges::none_of(slots, added)) continue;
    const auto missing = std::ranges::find_if_not(slots, added);
    if (missing == slots.end()) continue;
    return InvalidOption(
        absl::StrCat("the header has no tensor ", Quote(missing->name)));
  }
  return absl::OkStatus();
}

OptimizerPtr SlotPlan::Fill(OptimizerState optimizer,
                            std::span<const at::Tensor> values) const {
  for (size_t p = 0; p < slots_.size(); ++p) {
    for (const Slot& slot : slots_[p]) {
      if (!slot.added.has_value()) continue;
      optimizer.slots[p].push_back(values[*slot.added].to(slot.model.device()));
    }
  }
  return std::make_shared<const OptimizerState>(std::move(optimizer));
}

}  // namespace backboned
