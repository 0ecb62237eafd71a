// Loads a weights file into a State: which tensor goes where, and the loading.

#ifndef BACKBONED_BACKBONES_WEIGHTS_H_
#define BACKBONED_BACKBONES_WEIGHTS_H_

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/layout.h"
#include "backbones/safetensors.h"
#include "backbones/state.h"

namespace backboned {

// How the tensors of a file find their places.
enum class LoadBy {
  // By state-dict key. Of several keys of one parameter the last one decides,
  // as in PyTorch.
  kName,
  // The file's tensors are the parameters in flat order, then the buffers,
  // which may be left out together.
  kOrder,
};

// What a file does to a layout's tensors.
struct LoadPlan {
  // For each entry of the file the tensor that it replaces: the parameters
  // count first, then the buffers.
  std::vector<std::optional<size_t>> targets;
  // Keys of the layout that the file lacks, in layout order, without
  // `num_batches_tracked`.
  std::vector<std::string> missing;
  // Keys of the file that the layout lacks, in the file's order.
  std::vector<std::string> unexpected;
};

// Plans how `entries` go into the tensors of `layout`.
//
// Returns kInvalidArgument that lists the first ten keys and the count if a
// shape differs (kShapeMismatch), a dtype cannot be converted (kDtypeMismatch)
// or, unless `partial`, a key is missing or unexpected (kInvalidOption).
absl::StatusOr<LoadPlan> PlanLoad(const Layout& layout,
                                  std::span<const SafetensorsEntry> entries,
                                  LoadBy by, bool partial);

// Computes `state` with what `plan` takes from `file`, whose data must not have
// been read; float64, float16 and bfloat16 become float32. All of the file is
// read. Versions and generator stay. The State's tensors are on the CPU.
//
// Returns the file's errors.
absl::StatusOr<StatePtr> LoadWeights(const State& state, const LoadPlan& plan,
                                     SafetensorsFile& file);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_WEIGHTS_H_
