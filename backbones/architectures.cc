#include "backbones/architectures.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "backbones/bottleneck_resnet.h"
#include "backbones/efficientnet.h"
#include "backbones/mnist_mlp.h"
#include "backbones/resnet.h"
#include "backbones/resnet32.h"
#include "backbones/resnet_pnn.h"
#include "backbones/vit.h"
#include "backbones/wide_resnet.h"
#include "base/errors.h"
#include "base/names.h"

namespace backboned {

namespace {

// Returns the entries of all families. A new family is a line here.
std::vector<ArchitectureEntry> AllEntries() {
  std::vector<ArchitectureEntry> all;
  const auto add = [&](std::vector<ArchitectureEntry> family) {
    std::ranges::move(family, std::back_inserter(all));
  };
  add(MnistMlpEntries());
  add(ResNetEntries());
  add(ResNetPnnEntries());
  add(ResNet32Entries());
  add(BottleneckResNetEntries());
  add(WideResNetEntries());
  add(EfficientNetEntries());
  add(VitEntries());
  std::ranges::sort(all, {}, &ArchitectureEntry::name);
  return all;
}

}  // namespace

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

namespace {

absl::Status CheckEarlierColumns(const ArchitectureEntry& entry,
                                 const Arguments& arguments, size_t earlier) {
  if (!entry.later_columns.has_value()) {
    std::vector<std::string> progressive;
    for (const ArchitectureEntry& other : Architectures()) {
      if (other.later_columns.has_value()) progressive.push_back(other.name);
    }
    return InvalidOption(absl::StrCat(entry.name,
                                      " is not a progressive network and takes "
                                      "no columns; progressive networks: ",
                                      absl::StrJoin(progressive, ", ")));
  }
  if (earlier > kMaxEarlierColumns) {
    return InvalidOption(absl::StrCat("there are ", earlier,
                                      " earlier columns, at most ",
                                      kMaxEarlierColumns, " are allowed"));
  }
  return entry.later_columns->check ? entry.later_columns->check(arguments)
                                    : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Architecture>> BuildArchitecture(
    std::string_view name, const Arguments& arguments, size_t earlier_columns) {
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
  if (earlier_columns == 0) return (*entry)->factory(*resolved);
  absl::Status columns =
      CheckEarlierColumns(**entry, *resolved, earlier_columns);
  if (!columns.ok()) return columns;
  return (*entry)->later_columns->factory(*resolved, earlier_columns);
}

}  // namespace backboned
