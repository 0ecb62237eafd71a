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

// The columns of a progressive network after its first one.
struct LaterColumns {
  // Arguments that must be equal in all columns.
  std::vector<std::string> common_arguments;
  // Builds the column after `earlier` columns, from resolved arguments.
  std::function<std::shared_ptr<const Architecture>(const Arguments&,
                                                    size_t earlier)>
      factory;
  // Checks constraints on the arguments of a later column. Absent: none.
  //
  // Returns kInvalidArgument (kInvalidOption) that names the arguments.
  std::function<absl::Status(const Arguments&)> check = {};
};

struct ArchitectureEntry {
  std::string name;
  std::string description;
  // The paper, and the file in Mammoth.
  std::string source;
  std::vector<ArgumentSpec> arguments;
  // Builds the architecture from resolved arguments.
  std::function<std::shared_ptr<const Architecture>(const Arguments&)> factory;
  // Mammoth always loads weights: an instance is made without them only if the
  // caller asks for that.
  bool pretrained = false;
  // Checks constraints between resolved arguments. Absent: none.
  //
  // Returns kInvalidArgument (kInvalidOption) that names the arguments.
  std::function<absl::Status(const Arguments&)> check = {};
  // Absent: this is no progressive network.
  std::optional<LaterColumns> later_columns = {};
};

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_ARCHITECTURE_ENTRY_H_
