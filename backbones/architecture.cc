#include "backbones/architecture.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"

namespace backboned {
Architecture::Architecture(Description description)
    : description_(std::move(description)), output_names_({"out", "features"}) {
  for (int64_t i = 0; i < description_.layer_count; ++i) {
    output_names_.push_back(absl::StrCat("layers.", i));
  }
}

absl::Status Architecture::CheckOutputs(
    std::span<const std::string> outputs) const {
  const std::string valid =
      absl::StrCat("; valid outputs: ", absl::StrJoin(output_names_, ", "));
  if (outputs.empty()) {
    return InvalidOption("no output is asked for" + valid);
  }
  for (auto output = outputs.begin(); output != outputs.end(); ++output) {
    if (std::ranges::find(output_names_, *output) == output_names_.end()) {
      return InvalidOption(
          absl::StrCat(name(), " has no output ", Quote(*output), valid));
    }
    if (std::find(outputs.begin(), output, *output) != output) {
      return InvalidOption(
          absl::StrCat("output ", *output, " is asked for twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace backboned
