// How much of a limit one principal, or one session, may use.

#ifndef BACKBONED_SERVER_LIMITS_QUOTAS_H_
#define BACKBONED_SERVER_LIMITS_QUOTAS_H_

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/errors.h"

namespace backboned {

// Owner of the instances that are hosted since the start.
inline constexpr std::string_view kServerPrincipal = "server";

// Who uses something of which there is a limit.
struct Payer {
  std::string principal;
  // Callers without a session count as one session of their principal.
  std::string session = {};

  auto operator<=>(const Payer&) const = default;
};

// How much of each limit one principal, and one of its sessions, may use, as
// fractions in (0, 1]. `server` may use all.
struct Quotas {
  double session = 1;
  // By principal; one who is not named may use all.
  std::map<std::string, double> principals = {};

  // The fraction of a limit that may be used within `scope` of `payer`.
  double Fraction(LimitScope scope, const Payer& payer) const;

  // How much of `limit` may be used within `scope` of `payer`: at least 1.
  int64_t Part(LimitScope scope, const Payer& payer, int64_t limit) const;

  // Whether what `payer` uses within `scope` needs looking at: it may use less
  // than all there, or `scope` is kServer.
  bool IsLimited(LimitScope scope, const Payer& payer) const;
};

// Scopes in which what a payer uses is counted, the narrowest first.
inline constexpr std::array kScopes = {
    LimitScope::kSession, LimitScope::kPrincipal, LimitScope::kServer};

// Makes the error of a limit that leaves no room: what its message says is
// `what`, then whose limit is meant and how much of it is used.
absl::Status NoRoom(const Limit& limit, int64_t used, std::string_view what);

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_QUOTAS_H_
