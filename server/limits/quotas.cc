#include "server/limits/quotas.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace backboned {
namespace {

const char* NameOf(LimitScope scope) {
  switch (scope) {
    case LimitScope::kSession:
      return "session";
    case LimitScope::kPrincipal:
      return "principal";
    case LimitScope::kRun:
      return "run";
    default:
      return "server";
  }
}

}  // namespace

double Quotas::Fraction(LimitScope scope, const Payer& payer) const {
  if (payer.principal == kServerPrincipal) return 1;
  if (scope == LimitScope::kSession) return session;
  if (scope != LimitScope::kPrincipal) return 1;
  return principals.Find(payer.principal).value_or(principal);
}

int64_t Quotas::Part(LimitScope scope, const Payer& payer,
                     int64_t limit) const {
  const double fraction = Fraction(scope, payer);
  if (fraction == 1) return limit;
  return std::max(
      int64_t{1},
      static_cast<int64_t>(std::floor(static_cast<double>(limit) * fraction)));
}

bool Quotas::IsLimited(LimitScope scope, const Payer& payer) const {
  return scope == LimitScope::kServer || Fraction(scope, payer) < 1;
}

absl::Status NoRoom(const Limit& limit, int64_t used, std::string_view what,
                    std::string_view advice) {
  return LimitReached(
      limit,
      absl::StrCat("no room for ", std::string(what), ": this ",
                   NameOf(limit.scope), " uses ", used, " of its ", limit.value,
                   " of ", limit.name, std::string(advice)));
}

}  // namespace backboned
