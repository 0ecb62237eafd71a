// Checks the images for a convolutional network.

#ifndef BACKBONED_BACKBONES_IMAGE_INPUT_H_
#define BACKBONED_BACKBONES_IMAGE_INPUT_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"

namespace backboned {

// Returns a kInvalidArgument (kShapeMismatch) for an input of `shape`, which
// says that [N, 3, H, W] and then `that` was expected, e.g. " with H = W = 32".
absl::Status ImageMismatch(std::span<const int64_t> shape,
                           const std::string& that);

// Returns OK if `shape` is [N, 3, H, W] without a size of 0, else
// ImageMismatch.
absl::Status CheckImages(std::span<const int64_t> shape);

// Returns OK unless, if `training`, a BatchNorm over maps of `height` x `width`
// would see a single value in a channel, which PyTorch refuses. `shape`: the
// input's, for its batch size.
absl::Status CheckBatchNorm(std::span<const int64_t> shape, bool training,
                            int64_t height, int64_t width);

// Returns what is left of `side` after `halvings` layers with stride 2, which
// otherwise keep the side.
int64_t Halved(int64_t side, int halvings);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_IMAGE_INPUT_H_
