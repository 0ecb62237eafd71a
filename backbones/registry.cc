#include "backbones/registry.h"

#include <algorithm>
#include <string>

#include "backbones/errors.h"
#include "backbones/mnist_mlp.h"
#include "backbones/names.h"
#include "backbones/resnet.h"

namespace backboned {

const std::vector<ArchitectureEntry>& Architectures() {
  static const std::vector<ArchitectureEntry> entries = {
      MnistMlpEntry(),
      ResNet18Entry(),
  };
  return entries;
}

absl::StatusOr<const ArchitectureEntry*> FindArchitecture(
    std::string_view name) {
  const std::string canonical = CanonicalName(name);
  std::vector<std::string> valid;
  for (const ArchitectureEntry& entry : Architectures()) {
    if (entry.name == canonical) {
      return &entry;
    }
    valid.push_back(entry.name);
  }
  return UnknownName(Reason::kArchitectureNotFound, "architecture", name,
                     valid);
}

absl::StatusOr<std::shared_ptr<const Architecture>> BuildArchitecture(
    std::string_view name, const Arguments& arguments) {
  const absl::StatusOr<const ArchitectureEntry*> entry = FindArchitecture(name);
  if (!entry.ok()) {
    return entry.status();
  }
  const absl::StatusOr<Arguments> resolved =
      ResolveArguments((*entry)->arguments, arguments);
  if (!resolved.ok()) {
    return resolved.status();
  }
  return (*entry)->factory(*resolved);
}

}  // namespace backboned
