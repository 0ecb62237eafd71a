#include "server/callers/directory.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

absl::Status NoUser(std::string_view message) {
  return Error(absl::StatusCode::kPermissionDenied, Reason::kNotPermitted,
               message);
}

absl::Status Refused(std::string_view message) {
  return Error(absl::StatusCode::kUnauthenticated, Reason::kIdentityRefused,
               message);
}

std::string Format(absl::Time time) {
  return absl::FormatTime(absl::RFC3339_sec, time, absl::UTCTimeZone());
}

// Returns who calls where everybody may.
absl::StatusOr<Caller> Anybody(const Identity& identity) {
  // An address names no principal that is none.
  const absl::Status valid =
      identity.is_account ? CheckPrincipal(identity.name) : absl::OkStatus();
  if (valid.ok()) return Caller{.principal = identity.name};
  return Refused(
      absl::StrCat("the account cannot be a principal: ", valid.message()));
}

}  // namespace

Directory::Directory(NumberByPrincipal quotas, NumberByPrincipal shares)
    : quotas_(std::move(quotas)),
      shares_(std::move(shares)),
      first_quotas_(quotas_.All()),
      first_shares_(shares_.All()) {}

void Directory::SetUsers(const Users& users) {
  NumberByPrincipal::Numbers quotas = first_quotas_;
  NumberByPrincipal::Numbers shares = first_shares_;
  std::map<std::string, std::string, std::less<>> by_account;
  for (const auto& [name, user] : users) {
    if (user.quota) quotas.insert_or_assign(name, *user.quota);
    if (user.share) shares.insert_or_assign(name, *user.share);
    by_account.emplace(user.account.value_or(name), name);
  }
  quotas_.Set(std::move(quotas));
  shares_.Set(std::move(shares));
  absl::MutexLock lock(&mutex_);
  users_ = users;
  by_account_ = std::move(by_account);
}

absl::StatusOr<Caller> Directory::Find(const Identity& identity,
                                       absl::Time now) const {
  if (!identity.is_account && identity.name == kLocalPrincipal) {
    return Caller{.principal = identity.name, .rights = Rights::kAdmin};
  }
  if (identity.expires <= now) {
    return Refused(absl::StrCat("the token of ", identity.name, " expired at ",
                                Format(identity.expires),
                                "; the server's admin gives a new one"));
  }
  absl::ReaderMutexLock lock(&mutex_);
  return users_ ? FindUser(identity, now) : Anybody(identity);
}

absl::StatusOr<Caller> Directory::FindUser(const Identity& identity,
                                           absl::Time now) const {
  std::string name = identity.name;
  if (identity.is_account) {
    const auto of_account = by_account_.find(name);
    name = of_account == by_account_.end() ? "" : of_account->second;
  }
  const auto found = users_->find(name);
  if (found == users_->end()) {
    return NoUser(absl::StrCat(Quote(identity.name),
                               " is no user of this server, whose admin can "
                               "change that"));
  }
  const User& user = found->second;
  if (user.expires && *user.expires <= now) {
    return NoUser(absl::StrCat(name, " is a user of this server until ",
                               Format(*user.expires),
                               ", which its admin can change"));
  }
  if (identity.token && identity.token != user.token) {
    return Refused(absl::StrCat("token ", *identity.token, " of ", name,
                                " was replaced or withdrawn; the server's "
                                "admin gives a new one"));
  }
  return Caller{.principal = name, .rights = user.rights};
}

}  // namespace backboned
