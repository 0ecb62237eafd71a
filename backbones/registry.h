// The architectures that can be built, by name.

#ifndef BACKBONED_BACKBONES_REGISTRY_H_
#define BACKBONED_BACKBONES_REGISTRY_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backbones/architecture.h"
#include "backbones/arguments.h"

namespace backboned {

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

// Builds the architecture `name` with `arguments`, defaults filled in.
//
// Returns FindArchitecture's errors, ResolveArguments', and the entry's
// check's.
absl::StatusOr<std::shared_ptr<const Architecture>> BuildArchitecture(
    std::string_view name, const Arguments& arguments);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_REGISTRY_H_
