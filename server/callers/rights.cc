#include "server/callers/rights.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/principals.h"

namespace backboned {
namespace {

absl::Status NotPermitted(std::string_view message) {
  return Error(absl::StatusCode::kPermissionDenied, Reason::kNotPermitted,
               message);
}

bool Changes(Access access) {
  return access != Access::kAny && access != Access::kRead;
}

// Returns kPermissionDenied for a change of a caller that may make none.
absl::Status CheckMayChange(const Caller& caller, std::string_view what) {
  if (caller.rights != Rights::kInfer) return absl::OkStatus();
  return NotPermitted(absl::StrCat(
      caller.principal, " has the right to infer, and ", std::string(what),
      " needs the right to train, which the server's admin gives"));
}

}  // namespace

absl::Status CheckMethod(const Caller& caller, std::string_view method,
                         Access access) {
  return Changes(access) ? CheckMayChange(caller, method) : absl::OkStatus();
}

bool MayRead(const Ownership& instance, const Caller& caller) {
  return instance.owner == caller.principal || instance.shared ||
         instance.owner == kServerPrincipal || caller.rights == Rights::kAdmin;
}

absl::Status CheckRight(const Ownership& instance, const Caller& caller,
                        Access access) {
  if (!Changes(access) || caller.rights == Rights::kAdmin) {
    return absl::OkStatus();
  }
  absl::Status may_change = CheckMayChange(caller, "a change of an instance");
  if (!may_change.ok() || instance.owner == caller.principal) return may_change;
  const std::string owner(instance.owner);
  const std::string name = absl::StrCat(owner, "/", std::string(instance.name));
  return NotPermitted(absl::StrCat("instance ", Quote(name), " belongs to ",
                                   owner,
                                   ", and others may only read it; clone it"));
}

bool UsesCache(const Ownership& instance, std::string_view principal) {
  return instance.owner == principal || instance.owner == kServerPrincipal;
}

}  // namespace backboned
