#include "backbones/batch_norm.h"

#include <cmath>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "backbones/selection.h"
#include "base/errors.h"

namespace backboned {
namespace {

absl::Status CheckRanges(const BatchNormMode& mode) {
  if (mode.eps.has_value() && !(*mode.eps >= 0 && std::isfinite(*mode.eps))) {
    return InvalidOption(absl::StrCat("eps of BatchNorm is ", *mode.eps,
                                      ", must be at least 0"));
  }
  if (mode.momentum.has_value() &&
      !(*mode.momentum >= 0 && *mode.momentum <= 1)) {
    return InvalidOption(absl::StrCat("momentum of BatchNorm is ",
                                      *mode.momentum, ", must be in [0, 1]"));
  }
  return absl::OkStatus();
}

// Sets the fields of `mode` that `change` sets.
void Apply(const BatchNormMode& change, BatchNormMode& mode) {
  if (change.training.has_value()) mode.training = change.training;
  if (change.track_running_stats.has_value()) {
    mode.track_running_stats = change.track_running_stats;
  }
  if (change.eps.has_value()) mode.eps = change.eps;
  if (change.cumulative || change.momentum.has_value()) {
    mode.momentum = change.momentum;
    mode.cumulative = change.cumulative;
  }
}

}  // namespace

absl::StatusOr<std::vector<BatchNormMode>> ResolveBatchNorm(
    std::span<const BatchNormOverride> overrides, const Layout& layout) {
  if (overrides.empty()) return std::vector<BatchNormMode>();
  const std::vector<std::string>& names = layout.batch_norms();
  const std::vector<int64_t> sizes(names.size(), 1);
  std::vector<BatchNormMode> modes(names.size());
  size_t bytes = 0;
  for (const BatchNormOverride& change : overrides) {
    for (const std::string& glob : change.globs) bytes += glob.size();
  }
  if (overrides.size() > kMaxGlobs || bytes > kMaxSelectionBytes) {
    return InvalidOption(absl::StrCat(
        "there are ", overrides.size(), " BatchNorm overrides with ", bytes,
        " bytes of patterns, at most ", kMaxGlobs, " overrides and ",
        kMaxSelectionBytes, " bytes are allowed"));
  }
  for (const BatchNormOverride& change : overrides) {
    absl::Status valid = CheckRanges(change.mode);
    if (!valid.ok()) return valid;
    absl::StatusOr<std::vector<Slice>> layers =
        Select({.globs = change.globs}, names, sizes);
    if (!layers.ok()) return PrefixMessage("batch_norm", layers.status());
    for (const Slice& layer : *layers) Apply(change.mode, modes[layer.index]);
  }
  return modes;
}

}  // namespace backboned
