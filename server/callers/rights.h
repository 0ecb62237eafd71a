// Decides what a caller may do.

#ifndef BACKBONED_SERVER_CALLERS_RIGHTS_H_
#define BACKBONED_SERVER_CALLERS_RIGHTS_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "server/callers/access.h"
#include "users/users_file.h"

namespace backboned {

// A caller, as the directory knows it.
struct Caller {
  std::string principal;
  // The right that it has, at whatever instance.
  Rights rights = Rights::kTrain;

  bool operator==(const Caller&) const = default;
};

// Of an instance, all that rights depend on, and its name. Instances of
// `server` are shared.
struct Ownership {
  std::string_view owner;
  std::string_view name;
  bool shared = false;
};

// Returns kPermissionDenied (kNotPermitted) unless `caller` may call a method
// that needs `access`, whatever instance it names.
absl::Status CheckMethod(const Caller& caller, std::string_view method,
                         Access access);

// Returns whether `caller` may know of an instance, and read it.
bool MayRead(const Ownership& instance, const Caller& caller);

// Returns kPermissionDenied (kNotPermitted) unless `caller`, which may read the
// instance, may have `access` to it.
absl::Status CheckRight(const Ownership& instance, const Caller& caller,
                        Access access);

// Returns whether the forwards of `principal` use an instance's feature cache.
// Its owner's do, and nobody else's, so that none learns what others asked, or
// drops their answers; in one of `server`, everybody has answers of their own
// in the bytes of all.
bool UsesCache(const Ownership& instance, std::string_view principal);

}  // namespace backboned

#endif  // BACKBONED_SERVER_CALLERS_RIGHTS_H_
