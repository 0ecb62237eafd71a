// Plans and loads a weights file into a State.

#ifndef BACKBONED_BACKBONES_WEIGHTS_H_
#define BACKBONED_BACKBONES_WEIGHTS_H_

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/layout.h"
#include "backbones/state.h"
#include "base/safetensors.h"

namespace backboned {

// The way to assign the tensors of a file.
enum class LoadBy {
  // By state-dict key. If a parameter has several keys, the last one decides,
  // as in PyTorch.
  kName,
  // By order: the parameters in flat order, then the buffers, all or none of
  // them.
  kOrder,
};

// Options of a load.
struct LoadOptions {
  LoadBy by = LoadBy::kName;
  // Accepts missing and unexpected keys.
  bool partial = false;
  // Resizes a position embedding of another image size.
  bool resize_position_embedding = false;
};

// The assignment of a file's tensors to a layout's.
struct LoadPlan {
  // By entry of the file: the tensor that it replaces, as an index into the
  // parameters and then the buffers.
  std::vector<std::optional<size_t>> targets;
  // Keys of the layout that the file lacks, in layout order, without
  // `num_batches_tracked`.
  std::vector<std::string> missing;
  // Keys of the file that the layout lacks, in the file's order.
  std::vector<std::string> unexpected;
};

// Assigns `entries` to the tensors of `layout`.
//
// Returns kInvalidArgument, which lists the first ten keys and the count, if a
// shape differs (kShapeMismatch), a dtype cannot be converted (kDtypeMismatch)
// or, unless `partial`, a key is missing or unexpected (kInvalidOption).
absl::StatusOr<LoadPlan> PlanLoad(const Layout& layout,
                                  std::span<const SafetensorsEntry> entries,
                                  const LoadOptions& options);

// Computes `embedding`, [1, 1 + n^2, D] of any dtype, for a grid of another
// side: the grid by bicubic interpolation with antialiasing in float32, as
// timm's resample_abs_pos_embed does, the first token unchanged. Returns [1, 1
// + side^2, D] float32.
//
// Source: timm 0.9.8, timm/layers/pos_embed.py.
at::Tensor ResizePositionEmbedding(const at::Tensor& embedding, int64_t side);

// Computes entry `i` of `file`, which must be its next one, into a new tensor
// in the place of `state` that `plan` assigns. Returns the file's errors.
absl::Status LoadNext(size_t i, const LoadPlan& plan, SafetensorsFile& file,
                      State& state);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_WEIGHTS_H_
