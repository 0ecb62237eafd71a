// How BatchNorm layers run in one pass, where it is not as by default.
//
// Names and meaning are those of Python's nn.BatchNorm2d, whose attributes may
// be set layer by layer. Source: torch/nn/modules/batchnorm.py, torch 2.11.

#ifndef BACKBONED_BACKBONES_BATCH_NORM_H_
#define BACKBONED_BACKBONES_BATCH_NORM_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/layout.h"

namespace backboned {

// How one layer runs.
struct BatchNormMode {
  // Absent: as the pass does.
  std::optional<bool> training = {};
  // Absent: true. If false, a layer in training leaves its buffers alone; one
  // in evaluation uses the running statistics all the same.
  std::optional<bool> track_running_stats = {};
  // Absent: the layer's.
  std::optional<double> eps = {};
  std::optional<double> momentum = {};
  // Python's `momentum=None`: the running statistics are the averages of all
  // batches so far. `momentum` has no say then.
  bool cumulative = false;

  // Whether the layer uses the statistics of its batch.
  bool Trains(bool pass_trains) const { return training.value_or(pass_trains); }

  // Whether the layer's buffers move on.
  bool Moves(bool pass_trains) const {
    return Trains(pass_trains) && track_running_stats.value_or(true);
  }
};

// What differs in some layers.
struct BatchNormOverride {
  // Patterns over the layers' names, as in a Selection. Empty: all layers.
  std::vector<std::string> globs = {};
  // What is absent, or not `cumulative` without `momentum`, stays.
  BatchNormMode mode = {};
};

// Returns the mode of each of the layout's BatchNorm layers, in their order, or
// nothing if there are no overrides. Of several overrides that name a layer the
// last one decides, each field for itself.
//
// Returns kInvalidArgument (kInvalidOption) that names a pattern that matches
// no layer, an eps that is negative or not finite, or a momentum outside [0,
// 1], and if there are more than kMaxGlobs overrides, or more than
// kMaxSelectionBytes of patterns in all of them.
absl::StatusOr<std::vector<BatchNormMode>> ResolveBatchNorm(
    std::span<const BatchNormOverride> overrides, const Layout& layout);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_BATCH_NORM_H_
