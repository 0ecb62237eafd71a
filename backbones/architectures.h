// Builds architectures by name.

#ifndef BACKBONED_BACKBONES_ARCHITECTURES_H_
#define BACKBONED_BACKBONES_ARCHITECTURES_H_

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/architecture.h"
#include "backbones/architecture_entry.h"
#include "backbones/arguments.h"

namespace backboned {

// The most earlier columns of a column.
inline constexpr size_t kMaxEarlierColumns = 63;

// All architectures, by name. Safe from any thread, like the rest of this file.
const std::vector<ArchitectureEntry>& Architectures();

// Returns the entry of `name`; `_` equals `-`, and case does not matter.
//
// Returns kNotFound (kArchitectureNotFound), which lists the valid names.
absl::StatusOr<const ArchitectureEntry*> FindArchitecture(
    std::string_view name);

// Builds the architecture `name` with `arguments`, defaults filled in; for a
// progressive network, the column after `earlier_columns`.
//
// Returns errors of FindArchitecture, ResolveArguments and the entry's checks,
// and kInvalidArgument (kInvalidOption) for columns that it cannot have.
absl::StatusOr<std::shared_ptr<const Architecture>> BuildArchitecture(
    std::string_view name, const Arguments& arguments,
    size_t earlier_columns = 0);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_ARCHITECTURES_H_
