// Connects to the server that a connection file, or the environment, names.

#ifndef BACKBONED_CLIENT_CPP_CONNECT_H_
#define BACKBONED_CLIENT_CPP_CONNECT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "client/cpp/options.h"

namespace backboned::client {

// Connects as a connection file says: in the place of the options' credentials
// are the file's. Errors as of ReadConnectionFile and Client::Connect.
absl::StatusOr<Client> ConnectByFile(
    const std::string& path, Options options = {},
    absl::Duration wait = absl::ZeroDuration());

// Connects to the target, or by the file (.yaml, .yml), that BACKBONED_SERVER
// has, else by the connection file that BACKBONED_CONNECTION names, else by
// backboned/connection.yaml in XDG_CONFIG_HOME, which is ~/.config unless it is
// set.
//
// Returns kInvalidArgument if there is none of the three, else as ConnectByFile
// does.
absl::StatusOr<Client> ConnectByDefault(Options options = {});

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_CONNECT_H_
