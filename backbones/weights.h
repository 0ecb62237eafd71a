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

// How a file is loaded.
struct LoadOptions {
  LoadBy by = LoadBy::kName;
  // Missing and unexpected keys are no errors.
  bool partial = false;
  // A position embedding of another image size is resized.
  bool resize_position_embedding = false;
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
                                  const LoadOptions& options);

// Computes `embedding`, [1, 1 + n^2, D] of any dtype, for a grid of another
// side: the grid by bicubic interpolation with antialiasing in float32, as
// timm's resample_abs_pos_embed does, the first token as it is. Returns [1, 1 +
// side^2, D] float32.
//
// Source: timm 0.9.8, timm/layers/pos_embed.py.
at::Tensor ResizePositionEmbedding(const at::Tensor& embedding, int64_t side);

// Computes entry `i` of `file`, whose next one it is, into the tensor of
// `state` that `plan` says, which becomes another one. Returns the file's
// errors.
absl::Status LoadNext(size_t i, const LoadPlan& plan, SafetensorsFile& file,
                      State& state);

// Computes `state` with what `plan` takes from `file`, whose data must not have
// been read; floating-point tensors are converted to the State's dtype. All of
// the file is read. Versions and generator stay. The State's tensors are on the
// CPU.
//
// Returns the file's errors.
absl::StatusOr<StatePtr> LoadWeights(const State& state, const LoadPlan& plan,
                                     SafetensorsFile& file);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_WEIGHTS_H_
