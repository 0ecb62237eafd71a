// Which images a convolutional network takes.

#ifndef BACKBONED_BACKBONES_IMAGE_INPUT_H_
#define BACKBONED_BACKBONES_IMAGE_INPUT_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"

namespace backboned {

// Returns a kInvalidArgument (kShapeMismatch) that names an input of `shape`
// and says that [N, 3, H, W] was expected `that` fits, e.g. " with H = W = 32".
absl::Status ImageMismatch(std::span<const int64_t> shape,
                           const std::string& that);

// Returns OK if `shape` is [N, 3, H, W] without a size of 0, else
// ImageMismatch.
absl::Status CheckImages(std::span<const int64_t> shape);

// Returns OK unless, `training`, a BatchNorm over maps of `height` x `width`
// would see a single value a channel, which PyTorch refuses. `shape`: the
// input's, whose batch size counts.
absl::Status CheckBatchNorm(std::span<const int64_t> shape, bool training,
                            int64_t height, int64_t width);

// Returns what `halvings` layers with stride 2 that keep the sides otherwise
// leave of `side`.
int64_t Halved(int64_t side, int halvings);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_IMAGE_INPUT_H_
