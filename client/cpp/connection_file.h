// Reads connection files: where a server is, and what it wants to see.
//
// A connection file is YAML of the keys `target` (unix:/path or host:port),
// and, if wanted, `ca`, `certificate`, `key` (PEM, or a path), and `token` (the
// token) or `token-file` (a path). Paths are relative to the file's folder.

#ifndef BACKBONED_CLIENT_CPP_CONNECTION_FILE_H_
#define BACKBONED_CLIENT_CPP_CONNECTION_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/credentials.h"

namespace backboned::client {

// The content of a connection file.
struct ConnectionFile {
  std::string target;
  Credentials credentials;
};

// Reads the connection file `path`, and the files that it names but for that of
// the token, which is read for each call. Waits at most so long for a file that
// is not there yet, e.g. of a server that starts.
//
// Returns kUnavailable if it is not there, kInvalidArgument, with a sentence,
// if it is no connection file.
absl::StatusOr<ConnectionFile> ReadConnectionFile(
    const std::string& path, absl::Duration wait = absl::ZeroDuration());

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_CONNECTION_FILE_H_
