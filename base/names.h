// Compares names that a caller types with the valid ones.

#ifndef BACKBONED_BASE_NAMES_H_
#define BACKBONED_BASE_NAMES_H_

#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/errors.h"

namespace backboned {

// Returns `name` in lower case, with each `_` replaced by `-`.
std::string CanonicalName(std::string_view name);

// Returns kInvalidArgument unless `name` matches [a-z0-9][a-z0-9_.-]{0,63}.
// This is the only check of names that clients choose.
absl::Status CheckName(std::string_view name);

// Returns the first of `valid` that needs the fewest insertions, deletions and
// replacements to become `name`; empty if there is none.
std::string NearestName(std::string_view name,
                        std::span<const std::string> valid);

// Returns a kNotFound with `reason` for `name`, which is no `kind`
// (`benchmark`). The message suggests the most similar one of `valid`, and
// lists them all.
absl::Status UnknownName(Reason reason, std::string_view kind,
                         std::string_view name,
                         std::span<const std::string> valid);

}  // namespace backboned

#endif  // BACKBONED_BASE_NAMES_H_
