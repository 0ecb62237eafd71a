// Reaches the server that a command line, a file or the environment names.

#ifndef BACKBONED_CLIENT_CLI_SERVER_OPTIONS_H_
#define BACKBONED_CLIENT_CLI_SERVER_OPTIONS_H_

#include <CLI/App.hpp>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "client/cpp/client.h"

namespace backboned::cli {

// The heading of these options in --help.
inline constexpr char kServerGroup[] = "The server";

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

// Connects to the server. `moved` as in client::Options. Returns kUnavailable
// if it does not answer, kInvalidArgument if none is named.
absl::StatusOr<client::Client> ConnectTo(
    const ServerOptions& options,
    std::function<void(int64_t bytes)> moved = nullptr);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_SERVER_OPTIONS_H_
