// Checks the arguments of an architecture.

#ifndef BACKBONED_BACKBONES_ARGUMENTS_H_
#define BACKBONED_BACKBONES_ARGUMENTS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace backboned {

using ArgumentValue = std::variant<int64_t, double, bool, std::string>;

// Values by name.
using Arguments = std::map<std::string, ArgumentValue>;

// The kinds of values, in the order of ArgumentValue's alternatives.
enum class ArgumentKind { kInt, kDouble, kBool, kString };

// An argument of an architecture.
struct ArgumentSpec {
  std::string name = {};
  ArgumentKind kind = ArgumentKind::kInt;
  // Absent: the caller must give a value.
  std::optional<ArgumentValue> default_value = {};
  std::string description = {};
  // Bounds of a number, both inclusive.
  std::optional<int64_t> minimum = {};
  std::optional<int64_t> maximum = {};
  // An integer is the minimum plus a multiple of this.
  int64_t step = 1;
  // The only allowed values. Empty: any within the bounds.
  std::vector<ArgumentValue> choices = {};
};

// Returns the argument that every architecture takes.
ArgumentSpec NumClasses();

// Returns `value` as messages spell it.
std::string FormatArgument(const ArgumentValue& value);

// Checks `given` against `specs` and fills the defaults in. An integer is
// accepted as a floating-point number.
//
// Returns kInvalidArgument (kInvalidOption) if an argument is unknown, missing,
// of another kind or not allowed. The message names the argument and the
// allowed values, and lists the valid arguments.
absl::StatusOr<Arguments> ResolveArguments(std::span<const ArgumentSpec> specs,
                                           const Arguments& given);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_ARGUMENTS_H_
