#include "client/cli/health_command.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "client/cli/server_options.h"
#include "client/cpp/health.h"

namespace backboned::cli {
namespace {

using client::Health;

struct HealthOptions : ServerOptions {
  std::string instance;
  bool watch = false;
};

void PrintHealth(const Health& health, bool is_json) {
  if (is_json) {
    const std::string& status = Health::ServingStatus_Name(health.status());
    std::cout << nlohmann::json{{"status", status}} << "\n";
  } else {
    std::cout << (health.status() == Health::SERVING ? "serving"
                                                     : "not serving")
              << "\n";
  }
  std::cout.flush();
}

absl::Status StatusOf(const Health& health) {
  if (health.status() == Health::SERVING) return absl::OkStatus();
  return absl::UnavailableError("the server does not serve");
}

absl::Status Watch(const client::Client& client, bool is_json) {
  absl::Status ended = WatchHealth(client, [is_json](const Health& health) {
    PrintHealth(health, is_json);
  });
  if (!ended.ok()) return ended;
  return absl::UnavailableError("the server has ended");
}

absl::Status Check(const HealthOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  if (options.watch) return Watch(*client, options.json);
  const auto health = CheckHealth(*client);
  if (!health.ok()) return health.status();
  absl::Status serves = StatusOf(*health);
  if (serves.ok() && !options.instance.empty()) {
    v1::GetInstanceRequest request;
    request.set_instance(options.instance);
    const auto found = client->GetInstance(request);
    if (!found.ok()) return found.status();
  }
  PrintHealth(*health, options.json);
  return serves;
}

}  // namespace

void AddHealthCommand(CommandLine& line) {
  const auto options = std::make_shared<HealthOptions>();
  CLI::App* const health = line.Add("health", "Asks whether the server serves",
                                    [=] { return Check(*options); });
  CLI::Option* const instance =
      health->add_option("--instance", options->instance,
                         "Asks whether it has this instance, too");
  instance->type_name("INSTANCE");
  health
      ->add_flag("--watch", options->watch,
                 "Goes on, and prints a line at each change, until the "
                 "server ends")
      ->excludes(instance);
  AddServerOptions(health, *options);
}

}  // namespace backboned::cli
