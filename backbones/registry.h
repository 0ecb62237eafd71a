// The architectures that can be built, by name.

#ifndef BACKBONED_BACKBONES_REGISTRY_H_
#define BACKBONED_BACKBONES_REGISTRY_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backbones/architecture.h"
#include "backbones/arguments.h"

namespace backboned {

// What a progressive network has besides its first column.
struct LaterColumns {
  // Arguments that all columns have alike.
  std::vector<std::string> common_arguments;
  // Builds the column behind so many `earlier` ones, from resolved arguments.
  std::function<std::shared_ptr<const Architecture>(const Arguments&,
                                                    size_t earlier)>
      factory;
  // Checks what the arguments of a later column must fulfil. Absent: nothing.
  //
  // Returns kInvalidArgument (kInvalidOption) that names the arguments.
  std::function<absl::Status(const Arguments&)> check = {};
};

// The most columns before another one.
inline constexpr size_t kMaxEarlierColumns = 63;

struct ArchitectureEntry {
  std::string name;
  std::string description;
  // The paper, and where Mammoth defines it.
  std::string source;
  std::vector<ArgumentSpec> arguments;
  // Builds it from resolved arguments.
  std::function<std::shared_ptr<const Architecture>(const Arguments&)> factory;
  // Whether Mammoth always loads weights into it: an instance is made without
  // them only if the caller says so.
  bool pretrained = false;
  // Checks what resolved arguments must fulfil together. Absent: nothing.
  //
  // Returns kInvalidArgument (kInvalidOption) that names the arguments.
  std::function<absl::Status(const Arguments&)> check = {};
  // Absent: it is no progressive network.
  std::optional<LaterColumns> later_columns = {};
};

// The argument that every architecture takes.
ArgumentSpec NumClasses();

// All of them, by name. Safe from any thread, like the rest of this file.
const std::vector<ArchitectureEntry>& Architectures();

// Returns the entry of `name`, in which `_` equals `-` and case does not count.
//
// Returns kNotFound (kArchitectureNotFound) that names it and lists the valid
// ones.
absl::StatusOr<const ArchitectureEntry*> FindArchitecture(
    std::string_view name);

// Builds the architecture `name` with `arguments`, defaults filled in; of a
// progressive network the column behind `earlier_columns`.
//
// Returns FindArchitecture's errors, ResolveArguments', the entry's checks',
// and kInvalidArgument (kInvalidOption) for columns that it cannot have.
absl::StatusOr<std::shared_ptr<const Architecture>> BuildArchitecture(
    std::string_view name, const Arguments& arguments,
    size_t earlier_columns = 0);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_REGISTRY_H_
