#include "client/cli/server_options.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/cpp/connect.h"

namespace backboned::cli {

void AddServerOptions(CLI::App* command, ServerOptions& options,
                      bool has_json) {
  if (has_json) command->add_flag("--json", options.json, "Prints JSON");
  CLI::Option* const server =
      command
          ->add_option("--server", options.server,
                       "unix:/PATH, HOST:PORT or a connection file; else the "
                       "server of --connection, BACKBONED_SERVER, "
                       "BACKBONED_CONNECTION or "
                       "~/.config/backboned/connection.yaml")
          ->type_name("TARGET")
          ->group(kServerGroup);
  command
      ->add_option("--connection", options.connection,
                   "A connection file: the server, its CA, a token")
      ->type_name("FILE")
      ->excludes(server)
      ->group(kServerGroup);
  command
      ->add_option("--timeout", options.timeout,
                   "Seconds after which a server that is not there is given up")
      ->check(CLI::Range(0.1, 3600.0))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(kServerGroup);
}

absl::StatusOr<client::Client> ConnectTo(
    const ServerOptions& options, std::function<void(int64_t bytes)> moved) {
  client::Options how;
  how.connect_timeout = absl::Seconds(options.timeout);
  how.retry_timeout = how.connect_timeout;
  how.call_timeout = absl::InfiniteDuration();
  how.moved = std::move(moved);
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
  auto client = client::ConnectByDefault(std::move(how));
  if (!absl::StartsWith(client.status().message(), "no server is named")) {
    return client;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("without --server, ", client.status().message()));
}

}  // namespace backboned::cli
