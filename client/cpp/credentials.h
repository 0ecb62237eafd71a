// Says what a client shows a server, and how it knows the server.

#ifndef BACKBONED_CLIENT_CPP_CREDENTIALS_H_
#define BACKBONED_CLIENT_CPP_CREDENTIALS_H_

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace backboned::client {

// Gives a token, or says why there is none. Is asked for each stream of calls
// and each call of one message, since tokens expire; by any thread. May make no
// call of the client that asks.
using TokenSource = std::function<absl::StatusOr<std::string>()>;

struct Credentials {
  // Certificates (PEM) of those who may have signed the server's. Empty: with a
  // certificate or a token of the client, those that the system trusts.
  std::string ca = {};

  // The client's certificate, and behind it those up to its CA's, and its key
  // (PEM, without a passphrase). Both are empty, or neither is.
  std::string certificate = {};
  std::string key = {};

  // The token of a call, which goes as `authorization: Bearer TOKEN`. Null:
  // none.
  TokenSource token = nullptr;
};

// Returns whether the connection to `target` is one of TLS: a CA or a
// certificate wants it, and a token that does not go to a Unix socket.
bool UsesTls(const std::string& target, const Credentials& credentials);

// Returns kInvalidArgument, with a sentence, unless a client can show
// `credentials`.
absl::Status CheckCredentials(const Credentials& credentials);

// Returns kInvalidArgument unless `token` is 1 to 7168 printable characters of
// ASCII without spaces.
absl::Status CheckToken(std::string_view token);

// Gives always the same token.
TokenSource FixedToken(std::string token);

// Reads a file each time: one token, and spaces and newlines around it.
TokenSource TokenFile(std::string path);

// Returns the text of a file of at most a MiB. Returns kInvalidArgument if it
// cannot be read; `what` names it in the sentence.
absl::StatusOr<std::string> ReadText(const std::string& what,
                                     const std::string& path);

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_CREDENTIALS_H_
