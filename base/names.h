// Names that a caller types: what equals what, and what may have been meant.

#ifndef BACKBONED_BASE_NAMES_H_
#define BACKBONED_BASE_NAMES_H_

#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/errors.h"

namespace backboned {

// Returns `name` in lower case, each `_` replaced by `-`.
std::string CanonicalName(std::string_view name);

// Returns kInvalidArgument unless `name` matches [a-z0-9][a-z0-9_.-]{0,63}. The
// one check of every name that a client chooses.
absl::Status CheckName(std::string_view name);

// Returns the one of `valid` that needs the fewest insertions, deletions and
// replacements to become `name`, the first of several; empty if there is none.
std::string NearestName(std::string_view name,
                        std::span<const std::string> valid);

// Returns a kNotFound with `reason` for `name`, which is no `kind`
// (`benchmark`). Asks whether the most similar one of `valid` was meant, and
// lists them all.
absl::Status UnknownName(Reason reason, std::string_view kind,
                         std::string_view name,
                         std::span<const std::string> valid);

}  // namespace backboned

#endif  // BACKBONED_BASE_NAMES_H_
