#include "base/names.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace backboned {
namespace {

// The most slips between a mistyped name and the valid one.
constexpr size_t kMaxSlips = 2;

// Returns whether the lengths alone imply more slips.
bool IsFar(std::string_view a, std::string_view b) {
  return std::max(a.size(), b.size()) - std::min(a.size(), b.size()) >
         kMaxSlips;
}

// Returns Levenshtein's distance: insertions, deletions and replacements.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row.back();
}

bool IsNameCharacter(unsigned char c) {
  return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_' ||
         c == '.' || c == '-';
}

}  // namespace

absl::Status CheckName(std::string_view name) {
  const bool valid = !name.empty() && name.size() <= 64 &&
                     absl::ascii_isalnum(static_cast<unsigned char>(name[0])) &&
                     std::all_of(name.begin(), name.end(), IsNameCharacter);
  if (valid) return absl::OkStatus();
  return InvalidOption(absl::StrCat(
      "name ", Quote(name), " does not match [a-z0-9][a-z0-9_.-]{0,63}"));
}

std::string CanonicalName(std::string_view name) {
  std::string canonical(name);
  for (char& c : canonical) {
    c = c == '_' ? '-' : absl::ascii_tolower(static_cast<unsigned char>(c));
  }
  return canonical;
}

std::string NearestName(std::string_view name,
                        std::span<const std::string> valid) {
  std::string nearest;
  size_t best = std::numeric_limits<size_t>::max();
  for (const std::string& candidate : valid) {
    const size_t distance = EditDistance(name, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

absl::Status UnknownName(Reason reason, std::string_view kind,
                         std::string_view name,
                         std::span<const std::string> valid) {
  const std::string canonical = CanonicalName(name);
  std::string meant;
  size_t best = kMaxSlips + 1;
  for (const std::string& candidate : valid) {
    if (IsFar(canonical, candidate)) {
      continue;
    }
    const size_t distance = EditDistance(canonical, candidate);
    if (distance < best) {
      best = distance;
      meant = absl::StrCat("did you mean ", candidate, "? ");
    }
  }
  const std::string kind_name(kind);
  return Error(
      absl::StatusCode::kNotFound, reason,
      absl::StrCat("no ", kind_name, " ", Quote(name), "; ", meant, "valid ",
                   kind_name, "s: ", absl::StrJoin(valid, ", ")));
}

}  // namespace backboned
