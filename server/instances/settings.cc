#include "server/instances/settings.h"

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "backbones/selection.h"
#include "base/errors.h"

namespace backboned {
namespace {

// Of all patterns, so that a page of a list holds a hundred instances.
constexpr size_t kMaxFrozenBytes = 32 << 10;

}  // namespace

absl::StatusOr<std::vector<bool>> TrainedUnder(const Settings& settings,
                                               const Layout& layout) {
  std::vector<bool> trained(layout.parameters().size(), true);
  if (settings.frozen.empty()) return trained;
  size_t bytes = 0;
  for (const std::string& glob : settings.frozen) bytes += glob.size();
  if (bytes > kMaxFrozenBytes) {
    return InvalidOption(absl::StrCat("frozen has ", bytes, " bytes, at most ",
                                      kMaxFrozenBytes, " are allowed"));
  }
  absl::StatusOr<std::vector<Slice>> frozen =
      SelectParameters({.globs = settings.frozen}, layout);
  if (!frozen.ok()) return frozen.status();
  for (const Slice& slice : *frozen) trained[slice.index] = false;
  return trained;
}

}  // namespace backboned
