// Names the tensors of an optimizer's state, to give and to take them by name.

#ifndef BACKBONED_BACKBONES_OPTIMIZER_SLOTS_H_
#define BACKBONED_BACKBONES_OPTIMIZER_SLOTS_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backbones/layout.h"
#include "backbones/optimizer.h"
#include "backbones/state.h"

namespace backboned {

// Returns the names of the tensors that a parameter has once it was stepped, in
// the order of SlotNames: `conv1.weight/exp_avg`. None if it is never stepped.
std::vector<std::string> SlotTensorNames(const OptimizerState& optimizer,
                                         const Layout& layout,
                                         size_t parameter);

// Collects the tensors of an optimizer's state by name, in any order.
//
// Not thread-safe.
class SlotPlan {
 public:
  // Plans the slots of `optimizer`, of the parameters of `state`.
  SlotPlan(const OptimizerState& optimizer, const Layout& layout,
           const State& state);

  // Adds a tensor, and returns a model of its shape, dtype and device.
  //
  // Returns kInvalidArgument (kInvalidOption) if there is no such tensor, or it
  // was added before.
  absl::StatusOr<at::Tensor> Add(std::string_view name);

  // Returns kInvalidArgument (kInvalidOption), which names a missing tensor,
  // unless each parameter has all of its tensors, or none.
  absl::Status CheckComplete() const;

  // The models of all tensors, in the order of Add.
  const std::vector<at::Tensor>& models() const { return models_; }

  // Computes `optimizer`, which has no state, with `values`, in the order of
  // Add, as its state.
  OptimizerPtr Fill(OptimizerState optimizer,
                    std::span<const at::Tensor> values) const;

 private:
  struct Slot {
    std::string name;
    at::Tensor model;
    std::optional<size_t> added;  // Index in the order of Add.
  };

  std::vector<std::vector<Slot>> slots_;  // By parameter.
  std::vector<at::Tensor> models_;
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_OPTIMIZER_SLOTS_H_
