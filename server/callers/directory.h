// Knows who may call, and what each caller may do.

#ifndef BACKBONED_SERVER_CALLERS_DIRECTORY_H_
#define BACKBONED_SERVER_CALLERS_DIRECTORY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/principals.h"
#include "server/callers/rights.h"
#include "users/users_file.h"

namespace backboned {

// A caller, as the address knows it.
struct Identity {
  // A principal, or an account of this machine.
  std::string name;
  bool is_account = false;
  // Of the token that a front has accepted: its serial number, and the time
  // from which on it is not valid.
  std::optional<int64_t> token = {};
  absl::Time expires = absl::InfiniteFuture();
};

// The users, or, without any list of them, everybody. Thread-safe.
class Directory {
 public:
  // Lets in whom an address lets in, with the right to train. `quotas` and
  // `shares` are the numbers that others read, which SetUsers changes.
  Directory(NumberByPrincipal quotas, NumberByPrincipal shares);

  // Lets in only these users, besides the local principal, from now on. Their
  // quotas and shares count more than those that were there at the start.
  void SetUsers(const Users& users);

  // Returns who `identity` is, and may do, at `now`. The local principal is an
  // admin.
  //
  // Returns kPermissionDenied (kNotPermitted) if it is no user, or not any
  // more; kUnauthenticated (kIdentityRefused) if its token has expired or was
  // replaced, or its account's name cannot be a principal's.
  absl::StatusOr<Caller> Find(const Identity& identity, absl::Time now) const;

 private:
  absl::StatusOr<Caller> FindUser(const Identity& identity,
                                  absl::Time now) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  NumberByPrincipal quotas_;
  NumberByPrincipal shares_;
  const NumberByPrincipal::Numbers first_quotas_;
  const NumberByPrincipal::Numbers first_shares_;
  mutable absl::Mutex mutex_;
  std::optional<Users> users_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string, std::less<>> by_account_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_CALLERS_DIRECTORY_H_
