// Overrides the mode of BatchNorm layers for one pass.
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

// The mode of one layer.
struct BatchNormMode {
  // Absent: the pass's.
  std::optional<bool> training = {};
  // Absent: true. If false, a layer in training leaves its buffers alone; a
  // layer in evaluation uses the running statistics all the same.
  std::optional<bool> track_running_stats = {};
  // Absent: the layer's.
  std::optional<double> eps = {};
  std::optional<double> momentum = {};
  // Python's `momentum=None`: the running statistics are the averages of all
  // batches so far, and `momentum` is ignored.
  bool cumulative = false;

  // Returns whether the layer uses the statistics of its batch.
  bool Trains(bool pass_trains) const { return training.value_or(pass_trains); }

  // Returns whether the layer updates its buffers.
  bool Moves(bool pass_trains) const {
    return Trains(pass_trains) && track_running_stats.value_or(true);
  }
};

// A change of the mode of some layers.
struct BatchNormOverride {
  // Patterns over the layers' names, as in a Selection. Empty: all layers.
  std::vector<std::string> globs = {};
  // Absent fields, and a false `cumulative` without `momentum`, change nothing.
  BatchNormMode mode = {};
};

// Returns the mode of each of the layout's BatchNorm layers, in their order, or
// nothing if there are no overrides. Each field of a layer's mode is that of
// the last override that names the layer and sets the field.
//
// Returns kInvalidArgument (kInvalidOption) if a pattern matches no layer, an
// eps is negative or not finite, or a momentum is outside [0, 1], which it
// names; and if there are more than kMaxGlobs overrides, or more than
// kMaxSelectionBytes of patterns in all of them.
absl::StatusOr<std::vector<BatchNormMode>> ResolveBatchNorm(
    std::span<const BatchNormOverride> overrides, const Layout& layout);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_BATCH_NORM_H_
