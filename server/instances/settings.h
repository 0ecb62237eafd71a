// Settings of an instance that may change after it was made.

#ifndef BACKBONED_SERVER_INSTANCES_SETTINGS_H_
#define BACKBONED_SERVER_INSTANCES_SETTINGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/layout.h"

namespace backboned {

struct Settings {
  // Refuses all writes.
  bool read_only = false;
  // Patterns over the parameters that are not trained, as in a Selection.
  // Empty: none.
  std::vector<std::string> frozen = {};
  // The feature cache's limit. 0: no cache.
  int64_t feature_cache_bytes = 0;
  // Lets everybody read it.
  bool shared = false;

  bool operator==(const Settings&) const = default;
};

// Returns for each parameter of `layout` whether it is trained.
//
// Returns kInvalidArgument (kInvalidOption) if a pattern matches no parameter.
absl::StatusOr<std::vector<bool>> TrainedUnder(const Settings& settings,
                                               const Layout& layout);

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_SETTINGS_H_
