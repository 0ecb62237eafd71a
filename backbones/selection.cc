#include "backbones/selection.h"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

// Returns whether `pattern`, in which `*` stands for any characters, matches
// `name`. On a mismatch, the last `*` takes one more character.
bool Matches(std::string_view pattern, std::string_view name) {
  size_t p = 0;
  size_t n = 0;
  size_t star = std::string_view::npos;
  size_t star_end = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_end = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++star_end;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

absl::StatusOr<std::vector<Slice>> SelectByGlobs(
    std::span<const std::string> globs, std::span<const std::string> names,
    std::span<const int64_t> sizes) {
  if (globs.size() > kMaxGlobs) {
    return InvalidOption(absl::StrCat(globs.size(),
                                      " patterns are given, at most ",
                                      kMaxGlobs, " are allowed"));
  }
  size_t bytes = 0;
  for (const std::string& glob : globs) bytes += glob.size();
  if (bytes > kMaxSelectionBytes) {
    return InvalidOption(absl::StrCat("the patterns have ", bytes,
                                      " bytes, at most ", kMaxSelectionBytes,
                                      " are allowed"));
  }
  const bool everything = globs.empty() || globs.front().starts_with('!');
  std::vector<bool> selected(names.size(), everything);
  for (const std::string& glob : globs) {
    if (glob.size() > kMaxGlobBytes) {
      return InvalidOption(absl::StrCat("a pattern has ", glob.size(),
                                        " bytes, at most ", kMaxGlobBytes,
                                        " are allowed"));
    }
    const bool excludes = glob.starts_with('!');
    const std::string_view pattern =
        std::string_view(glob).substr(excludes ? 1 : 0);
    bool matched = false;
    for (size_t i = 0; i < names.size(); ++i) {
      if (Matches(pattern, names[i])) {
        selected[i] = !excludes;
        matched = true;
      }
    }
    if (!matched) {
      return InvalidOption(absl::StrCat(
          "pattern ", Quote(glob), " matches none of ", names.size(), " names",
          names.empty() ? "" : ", the first of which is ",
          names.empty() ? "" : names.front()));
    }
  }
  std::vector<Slice> slices;
  for (size_t i = 0; i < names.size(); ++i) {
    if (selected[i]) {
      slices.push_back(
          {.index = i, .begin = 0, .end = sizes[i], .whole = true});
    }
  }
  return slices;
}

absl::StatusOr<std::vector<Slice>> SelectRange(int64_t begin, int64_t end,
                                               std::span<const int64_t> sizes) {
  const int64_t total = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  if (begin < 0 || begin > end || end > total) {
    return InvalidOption(absl::StrCat("range [", begin, ", ", end,
                                      ") must be within [0, ", total,
                                      "), and not end before it begins"));
  }
  std::vector<Slice> slices;
  int64_t offset = 0;
  for (size_t i = 0; i < sizes.size(); offset += sizes[i], ++i) {
    const int64_t first = std::max(begin - offset, int64_t{0});
    const int64_t last = std::min(end - offset, sizes[i]);
    if (first < last) {
      slices.push_back({.index = i,
                        .begin = first,
                        .end = last,
                        .whole = first == 0 && last == sizes[i]});
    }
  }
  return slices;
}

// Selects among tensors that a layout declares.
template <typename Declaration>
absl::StatusOr<std::vector<Slice>> SelectDeclared(
    const Selection& selection, const std::vector<Declaration>& tensors) {
  std::vector<std::string> names;
  std::vector<int64_t> sizes;
  for (const Declaration& tensor : tensors) {
    names.push_back(tensor.name);
    sizes.push_back(tensor.elements);
  }
  return Select(selection, names, sizes);
}

}  // namespace

absl::StatusOr<std::vector<Slice>> Select(const Selection& selection,
                                          std::span<const std::string> names,
                                          std::span<const int64_t> sizes) {
  if (!selection.range.has_value()) {
    return SelectByGlobs(selection.globs, names, sizes);
  }
  if (!selection.globs.empty()) {
    return InvalidOption("give either globs or range, not both");
  }
  return SelectRange(selection.range->first, selection.range->second, sizes);
}

absl::StatusOr<std::vector<Slice>> SelectParameters(const Selection& selection,
                                                    const Layout& layout) {
  return SelectDeclared(selection, layout.parameters());
}

absl::StatusOr<std::vector<Slice>> SelectWholeParameters(
    const Selection& selection, const Layout& layout) {
  absl::StatusOr<std::vector<Slice>> slices =
      SelectParameters(selection, layout);
  if (!slices.ok()) return slices;
  for (const Slice& slice : *slices) {
    if (slice.whole) continue;
    const Parameter& parameter = layout.parameters()[slice.index];
    return InvalidOption(
        absl::StrCat("range cuts ", Quote(parameter.name),
                     ": it selects elements [", slice.begin, ", ", slice.end,
                     ") of ", parameter.elements, "; select whole parameters"));
  }
  return slices;
}

absl::StatusOr<std::vector<Slice>> SelectBuffers(const Selection& selection,
                                                 const Layout& layout) {
  return SelectDeclared(selection, layout.buffers());
}

int64_t CountElements(std::span<const Slice> slices) {
  int64_t elements = 0;
  for (const Slice& slice : slices) {
    elements += slice.elements();
  }
  return elements;
}

}  // namespace backboned
