// Reaches the server that a command line, a file or the environment names.

#ifndef BACKBONED_CLIENT_CLI_SERVER_OPTIONS_H_
#define BACKBONED_CLIENT_CLI_SERVER_OPTIONS_H_

#include <CLI/App.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "client/cpp/client.h"

namespace backboned::cli {

// Options of each command that calls a server.
struct ServerOptions {
  std::string server;
  std::string connection;
  double timeout = 10;  // Seconds.
  bool json = false;
};

// Adds --server, --connection and --timeout to a command; --json if it has it.
void AddServerOptions(CLI::App* command, ServerOptions& options,
                      bool has_json = true);

// Connects to the server. Returns kUnavailable if it does not answer,
// kInvalidArgument if none is named.
absl::StatusOr<client::Client> ConnectTo(const ServerOptions& options);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_SERVER_OPTIONS_H_
