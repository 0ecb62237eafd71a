#include "server/callers/rights.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "server/callers/principal.h"
#include "server/limits/quotas.h"

namespace backboned {

bool MayRead(const Ownership& instance, std::string_view principal) {
  return instance.owner == principal || instance.shared ||
         instance.owner == kServerPrincipal || IsAdmin(principal);
}

absl::Status CheckRight(const Ownership& instance, std::string_view principal,
                        Access access) {
  if (access == Access::kRead || instance.owner == principal ||
      IsAdmin(principal)) {
    return absl::OkStatus();
  }
  const std::string owner(instance.owner);
  const std::string name = absl::StrCat(owner, "/", std::string(instance.name));
  return Error(absl::StatusCode::kPermissionDenied, Reason::kNotPermitted,
               absl::StrCat("instance ", Quote(name), " belongs to ", owner,
                            ", and others may only read it; clone it"));
}

bool UsesCache(const Ownership& instance, std::string_view principal) {
  return instance.owner == principal || instance.owner == kServerPrincipal;
}

}  // namespace backboned
