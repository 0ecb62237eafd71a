#include "backbones/registry.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "backbones/bottleneck_resnet.h"
#include "backbones/efficientnet.h"
#include "backbones/errors.h"
#include "backbones/mnist_mlp.h"
#include "backbones/names.h"
#include "backbones/resnet.h"
#include "backbones/resnet32.h"
#include "backbones/vit.h"
#include "backbones/wide_resnet.h"

namespace backboned {

namespace {

// The architectures of all families. A new family is a line here.
std::vector<ArchitectureEntry> AllEntries() {
  std::vector<ArchitectureEntry> all;
  const auto add = [&](std::vector<ArchitectureEntry> family) {
    std::ranges::move(family, std::back_inserter(all));
  };
  add(MnistMlpEntries());
  add(ResNetEntries());
  add(ResNet32Entries());
  add(BottleneckResNetEntries());
  add(WideResNetEntries());
  add(EfficientNetEntries());
  add(VitEntries());
  std::ranges::sort(all, {}, &ArchitectureEntry::name);
  return all;
}

}  // namespace

ArgumentSpec NumClasses() {
  return {.name = "num_classes",
          .description = "number of logits",
          .minimum = 1,
          .maximum = 100'000};
}

const std::vector<ArchitectureEntry>& Architectures() {
  static const std::vector<ArchitectureEntry> entries = AllEntries();
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
  if ((*entry)->check) {
    absl::Status status = (*entry)->check(*resolved);
    if (!status.ok()) return status;
  }
  return (*entry)->factory(*resolved);
}

}  // namespace backboned
