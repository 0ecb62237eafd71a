// Names of those who call.

#ifndef BACKBONED_SERVER_CALLERS_PRINCIPAL_H_
#define BACKBONED_SERVER_CALLERS_PRINCIPAL_H_

#include <string_view>

#include "absl/status/status.h"

namespace backboned {

// The principal of everybody at an address that names no other: a trusted
// person, who is an admin.
inline constexpr std::string_view kLocalPrincipal = "local";

// Returns kInvalidArgument unless `name` may be a person's or a program's:
// [a-z0-9][a-z0-9_.-]{0,63}, and neither `local` nor `server`.
absl::Status CheckPrincipal(std::string_view name);

// Returns whether `principal` may use and change every instance.
inline bool IsAdmin(std::string_view principal) {
  return principal == kLocalPrincipal;
}

}  // namespace backboned

#endif  // BACKBONED_SERVER_CALLERS_PRINCIPAL_H_
