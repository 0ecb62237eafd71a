// Writes connection files: all that a client needs to reach a server.

#ifndef BACKBONED_CLIENT_CLI_CONNECTION_FILE_H_
#define BACKBONED_CLIENT_CLI_CONNECTION_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace backboned::cli {

// A connection file is YAML with these keys. Those that are empty are left out.
struct Connection {
  // host:port of a front, or unix:/path.
  std::string target;
  // The certificate, PEM, of the CA that a front's certificate is of. Empty:
  // one that every machine knows.
  std::string ca;
  std::string token;
};

// Returns the file's text.
std::string Format(const Connection& connection);

// Returns kFailedPrecondition if a connection file cannot be written to `path`:
// its folder is not there or not ours to write to, or there is a file that is
// no connection file or another account's.
absl::Status CheckWritable(const std::string& path);

// Returns kInvalidArgument, after `option`, unless `target` is host:port or
// unix:/path.
absl::Status CheckTarget(const std::string& option, const std::string& target);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_CONNECTION_FILE_H_
