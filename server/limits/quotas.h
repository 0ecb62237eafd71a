// Divides a limit between principals and sessions.

#ifndef BACKBONED_SERVER_LIMITS_QUOTAS_H_
#define BACKBONED_SERVER_LIMITS_QUOTAS_H_

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/errors.h"
#include "base/principals.h"

namespace backboned {

// The caller that a limited amount counts for.
struct Payer {
  std::string principal;
  // Callers without a session count as one session of their principal.
  std::string session = {};

  auto operator<=>(const Payer&) const = default;
};

// The part of each limit that a principal, and each of its sessions, may use,
// as fractions in (0, 1]. `server` may use all.
struct Quotas {
  double session = 1;
  double principal = 1;  // Of one that `principals` does not name.
  NumberByPrincipal principals = {};

  // Returns the fraction of a limit that may be used within `scope` of `payer`.
  double Fraction(LimitScope scope, const Payer& payer) const;

  // Returns the part of `limit` for `scope` of `payer`: at least 1.
  int64_t Part(LimitScope scope, const Payer& payer, int64_t limit) const;

  // Returns whether the use within `scope` of `payer` must be compared with a
  // limit: `scope` is kServer, or its fraction is less than 1.
  bool IsLimited(LimitScope scope, const Payer& payer) const;
};

// The scopes in which a payer's use is counted, the narrowest first.
inline constexpr std::array kScopes = {
    LimitScope::kSession, LimitScope::kPrincipal, LimitScope::kServer};

// Returns the error of a limit that has no room for `what`: `no room for 5 more
// bytes: this session uses 3 of its 8 of max-in-flight-bytes`, then `advice`.
absl::Status NoRoom(const Limit& limit, int64_t used, std::string_view what,
                    std::string_view advice = "");

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_QUOTAS_H_
