#include "server/settings.h"

#include <cstddef>

#include "backbones/selection.h"

namespace backboned {

absl::StatusOr<std::vector<bool>> TrainedUnder(const Settings& settings,
                                               const Layout& layout) {
  std::vector<bool> trained(layout.parameters().size(), true);
  if (settings.frozen.empty()) return trained;
  absl::StatusOr<std::vector<Slice>> frozen =
      SelectParameters({.globs = settings.frozen}, layout);
  if (!frozen.ok()) return frozen.status();
  for (const Slice& slice : *frozen) trained[slice.index] = false;
  return trained;
}

}  // namespace backboned
