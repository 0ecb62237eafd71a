// Signs tokens, and tells a front by which key to know them.

#ifndef BACKBONED_CLIENT_CLI_TOKENS_H_
#define BACKBONED_CLIENT_CLI_TOKENS_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "client/cli/keys.h"

namespace backboned::cli {

// The issuer and the audience of our tokens.
inline constexpr char kIssuer[] = "backboned";

// A token's claims.
struct Claims {
  std::string user;
  // Equal to the user's `token` in the users file while the token is valid.
  int64_t serial = 0;
  absl::Time issued;
  absl::Time expires;
};

// Returns a JSON Web Token (RFC 7519) with a signature of ES256 by a key of
// P-256.
std::string SignToken(const Key& key, const Claims& claims);

// Returns the key set (RFC 7517), JSON, with the public part of a key of P-256.
std::string KeySetOf(const Key& key);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_TOKENS_H_
