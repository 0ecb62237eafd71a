// Selects parameters or buffers of an instance.

#ifndef BACKBONED_BACKBONES_SELECTION_H_
#define BACKBONED_BACKBONES_SELECTION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backbones/layout.h"

namespace backboned {

// The most patterns of a selection, and bytes of a pattern: more than the
// tensors of a network, and than the letters of a name. All together must be
// shorter, since each is compared with each name, on the caller's thread.
inline constexpr size_t kMaxGlobs = 4096;
inline constexpr size_t kMaxGlobBytes = 256;
inline constexpr size_t kMaxSelectionBytes = 64 << 10;

// Names by pattern, or a range of elements. Empty: everything.
struct Selection {
  // `*` stands for any characters, dots too; upper and lower case differ. A
  // pattern behind `!` excludes. The last pattern that matches a name decides;
  // a name that none matches is out, or in if the first pattern excludes.
  std::vector<std::string> globs = {};
  // The first element and one past the last, in the flat tensor of everything.
  // May cut a tensor. Excludes `globs`.
  std::optional<std::pair<int64_t, int64_t>> range = {};
};

// A selected tensor, or the selected part of one.
struct Slice {
  // Index of the tensor, in layout order.
  size_t index = 0;
  // The elements inside the tensor: the first, and one past the last.
  int64_t begin = 0;
  int64_t end = 0;
  // The slice is all of the tensor.
  bool whole = true;

  int64_t elements() const { return end - begin; }
};

// Returns the slices that `selection` selects of tensors with `names` and
// `sizes` (elements), in layout order.
//
// Returns kInvalidArgument (kInvalidOption) if there are both globs and a
// range, too many or too long patterns, a pattern matches no name at all, or
// the range is reversed or leaves the tensors.
absl::StatusOr<std::vector<Slice>> Select(const Selection& selection,
                                          std::span<const std::string> names,
                                          std::span<const int64_t> sizes);

// Selects among the parameters of `layout`.
absl::StatusOr<std::vector<Slice>> SelectParameters(const Selection& selection,
                                                    const Layout& layout);

// Does the same, but returns kInvalidArgument (kInvalidOption), which names the
// first parameter that the range cuts, unless all are whole.
absl::StatusOr<std::vector<Slice>> SelectWholeParameters(
    const Selection& selection, const Layout& layout);

// Selects among the buffers of `layout`.
absl::StatusOr<std::vector<Slice>> SelectBuffers(const Selection& selection,
                                                 const Layout& layout);

// Returns the number of elements of all `slices`.
int64_t CountElements(std::span<const Slice> slices);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_SELECTION_H_
