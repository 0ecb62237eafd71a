// Decides what a principal may do with an instance.

#ifndef BACKBONED_SERVER_CALLERS_RIGHTS_H_
#define BACKBONED_SERVER_CALLERS_RIGHTS_H_

#include <string_view>

#include "absl/status/status.h"
#include "server/callers/access.h"

namespace backboned {

// Of an instance, all that rights depend on, and its name. Instances of
// `server` are shared.
struct Ownership {
  std::string_view owner;
  std::string_view name;
  bool shared = false;
};

// Returns whether `principal` may know of an instance, and read it.
bool MayRead(const Ownership& instance, std::string_view principal);

// Returns kPermissionDenied (kNotPermitted) unless `principal`, which may read
// the instance, may have `access` to it.
absl::Status CheckRight(const Ownership& instance, std::string_view principal,
                        Access access);

// Returns whether the forwards of `principal` use an instance's feature cache.
// Its owner's do, and nobody else's, so that none learns what others asked, or
// drops their answers; in one of `server`, everybody has answers of their own
// in the bytes of all.
bool UsesCache(const Ownership& instance, std::string_view principal);

}  // namespace backboned

#endif  // BACKBONED_SERVER_CALLERS_RIGHTS_H_
