#include "backbones/image_input.h"

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {

absl::Status ImageMismatch(std::span<const int64_t> shape,
                           const std::string& that) {
  return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
               absl::StrCat("input has shape ", FormatShape(shape),
                            ", expected [N, 3, H, W]", that));
}

absl::Status CheckImages(std::span<const int64_t> shape) {
  if (shape.size() != 4 || shape[1] != 3) return ImageMismatch(shape, "");
  if (shape[0] < 1 || shape[2] < 1 || shape[3] < 1) {
    return ImageMismatch(shape, " with no size of 0");
  }
  return absl::OkStatus();
}

absl::Status CheckBatchNorm(std::span<const int64_t> shape, bool training,
                            int64_t height, int64_t width) {
  if (!training || shape[0] > 1 || height > 1 || width > 1) {
    return absl::OkStatus();
  }
  return ImageMismatch(
      shape,
      " with more than one value a channel in the last maps, for BatchNorm");
}

int64_t Halved(int64_t side, int halvings) {
  for (int i = 0; i < halvings; ++i) side = (side - 1) / 2 + 1;
  return side;
}

}  // namespace backboned
