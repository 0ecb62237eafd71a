#include "client/cli/server_options.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/time/time.h"
#include "client/cpp/connect.h"

namespace backboned::cli {

void AddServerOptions(CLI::App* command, ServerOptions& options,
                      bool has_json) {
  CLI::Option* const server = command->add_option(
      "--server", options.server,
      "unix:/PATH, HOST:PORT or a connection file; else the server of "
      "--connection, BACKBONED_SERVER, BACKBONED_CONNECTION or "
      "~/.config/backboned/connection.yaml");
  server->type_name("TARGET");
  command
      ->add_option("--connection", options.connection,
                   "A connection file: the server, its CA, a token")
      ->type_name("FILE")
      ->excludes(server);
  command
      ->add_option("--timeout", options.timeout,
                   "Seconds after which a server that is not there is given up")
      ->check(CLI::Range(0.1, 3600.0))
      ->type_name("SECONDS")
      ->capture_default_str();
  if (has_json) command->add_flag("--json", options.json, "Prints JSON");
}

absl::StatusOr<client::Client> ConnectTo(const ServerOptions& options) {
  client::Options how;
  how.connect_timeout = absl::Seconds(options.timeout);
  how.retry_timeout = how.connect_timeout;
  how.call_timeout = absl::InfiniteDuration();
  if (!options.connection.empty()) {
    return client::ConnectByFile(options.connection, std::move(how));
  }
  if (absl::EndsWith(options.server, ".yaml") ||
      absl::EndsWith(options.server, ".yml")) {
    return client::ConnectByFile(options.server, std::move(how));
  }
  if (!options.server.empty()) {
    return client::Client::Connect(options.server, std::move(how));
  }
  return client::ConnectByDefault(std::move(how));
}

}  // namespace backboned::cli
