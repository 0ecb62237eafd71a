// An architecture as it can be built: its arguments, and what makes it of them.

#ifndef BACKBONED_BACKBONES_ARCHITECTURE_ENTRY_H_
#define BACKBONED_BACKBONES_ARCHITECTURE_ENTRY_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
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

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_ARCHITECTURE_ENTRY_H_
