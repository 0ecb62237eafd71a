#include "backbones/arguments.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/errors.h"

namespace backboned {
namespace {

constexpr std::array<const char*, 4> kKindNames = {
    "an integer", "a floating-point number", "true or false", "a word"};

const ArgumentSpec* Find(std::span<const ArgumentSpec> specs,
                         const std::string& name) {
  const auto found = std::ranges::find_if(
      specs, [&](const ArgumentSpec& spec) { return spec.name == name; });
  return found == specs.end() ? nullptr : &*found;
}

std::string FormatAllowed(const ArgumentSpec& spec) {
  if (!spec.choices.empty()) {
    return absl::StrCat(
        "one of ",
        absl::StrJoin(spec.choices, ", ",
                      [](std::string* out, const ArgumentValue& value) {
                        out->append(FormatArgument(value));
                      }));
  }
  std::string allowed = kKindNames.at(static_cast<size_t>(spec.kind));
  if (spec.minimum.has_value()) {
    absl::StrAppend(&allowed, ", at least ", *spec.minimum);
  }
  if (spec.maximum.has_value()) {
    absl::StrAppend(&allowed, ", at most ", *spec.maximum);
  }
  if (spec.step != 1) absl::StrAppend(&allowed, ", in steps of ", spec.step);
  return allowed;
}

bool IsInBounds(const ArgumentSpec& spec, double number) {
  return (!spec.minimum || number >= static_cast<double>(*spec.minimum)) &&
         (!spec.maximum || number <= static_cast<double>(*spec.maximum));
}

bool IsAllowed(const ArgumentSpec& spec, const ArgumentValue& value) {
  if (value.index() != static_cast<size_t>(spec.kind)) {
    return false;
  }
  if (!spec.choices.empty() &&
      std::ranges::find(spec.choices, value) == spec.choices.end()) {
    return false;
  }
  if (const double* number = std::get_if<double>(&value)) {
    return IsInBounds(spec, *number);
  }
  const int64_t* number = std::get_if<int64_t>(&value);
  return number == nullptr ||
         (IsInBounds(spec, static_cast<double>(*number)) &&
          (*number - spec.minimum.value_or(0)) % spec.step == 0);
}

// Returns `value`, as a floating-point number if an integer is given for one.
ArgumentValue Promoted(const ArgumentSpec& spec, const ArgumentValue& value) {
  const int64_t* number = std::get_if<int64_t>(&value);
  if (number == nullptr || spec.kind != ArgumentKind::kDouble) return value;
  return static_cast<double>(*number);
}

absl::Status Invalid(std::span<const ArgumentSpec> specs,
                     const std::string& what) {
  const std::string valid = absl::StrJoin(
      specs, ", ", [](std::string* out, const ArgumentSpec& spec) {
        out->append(spec.name);
      });
  return InvalidOption(absl::StrCat(
      what, "; valid arguments: ", valid.empty() ? "none" : valid));
}

}  // namespace

ArgumentSpec NumClasses() {
  return {.name = "num_classes",
          .description = "number of logits",
          .minimum = 1,
          .maximum = 100'000};
}

std::string FormatArgument(const ArgumentValue& value) {
  if (const bool* truth = std::get_if<bool>(&value)) {
    return *truth ? "true" : "false";
  }
  if (const std::string* word = std::get_if<std::string>(&value)) {
    return Quote(*word);
  }
  if (const double* number = std::get_if<double>(&value)) {
    return absl::StrCat(*number);
  }
  return absl::StrCat(std::get<int64_t>(value));
}

absl::StatusOr<Arguments> ResolveArguments(std::span<const ArgumentSpec> specs,
                                           const Arguments& given) {
  Arguments resolved;
  for (const auto& [name, given_value] : given) {
    const ArgumentSpec* spec = Find(specs, name);
    if (spec == nullptr) {
      return Invalid(specs, absl::StrCat("no argument ", Quote(name)));
    }
    const ArgumentValue value = Promoted(*spec, given_value);
    resolved[name] = value;
    if (!IsAllowed(*spec, value)) {
      return Invalid(
          specs, absl::StrCat("argument ", name, " is ", FormatArgument(value),
                              ", must be ", FormatAllowed(*spec)));
    }
  }
  for (const ArgumentSpec& spec : specs) {
    if (resolved.contains(spec.name)) {
      continue;
    }
    if (!spec.default_value.has_value()) {
      return Invalid(
          specs, absl::StrCat("argument ", spec.name, " is missing, must be ",
                              FormatAllowed(spec)));
    }
    resolved[spec.name] = *spec.default_value;
  }
  return resolved;
}

}  // namespace backboned
