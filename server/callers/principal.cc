#include "server/callers/principal.h"

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/names.h"
#include "server/limits/quotas.h"

namespace backboned {

absl::Status CheckPrincipal(std::string_view name) {
  if (name == kLocalPrincipal || name == kServerPrincipal) {
    return absl::InvalidArgumentError(
        absl::StrCat(Quote(name), " is the server's own word"));
  }
  return CheckName(name);
}

}  // namespace backboned
