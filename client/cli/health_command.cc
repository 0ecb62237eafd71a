#include "client/cli/health_command.h"

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/cli/server_options.h"
#include "client/cpp/health.h"

namespace backboned::cli {
namespace {

using client::Health;

struct HealthOptions : ServerOptions {
  std::string instance;
  bool watch = false;
};

std::string WordOf(const Health& health) {
  switch (health.status()) {
    case Health::SERVING:
      return "serving";
    case Health::SERVICE_UNKNOWN:
      return "unknown";
    default:
      return "not serving";
  }
}

void PrintHealth(const Health& health, bool is_json) {
  if (is_json) {
    const std::string& status = Health::ServingStatus_Name(health.status());
    std::cout << nlohmann::json{{"status", status}} << "\n";
  } else {
    std::cout << WordOf(health) << "\n";
  }
  std::cout.flush();
}

absl::Status Watch(const client::Client& client, const HealthOptions& options) {
  absl::Status ended = WatchHealth(
      client, options.instance,
      [&options](const Health& health) { PrintHealth(health, options.json); });
  if (!ended.ok()) return ended;
  return absl::UnavailableError("the server has ended");
}

absl::Status Check(const HealthOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  if (options.watch) return Watch(*client, options);
  const auto health = CheckHealth(*client, options.instance);
  if (!health.ok()) return health.status();
  PrintHealth(*health, options.json);
  if (health->status() == Health::SERVING) return absl::OkStatus();
  return absl::UnavailableError(
      options.instance.empty()
          ? "the server does not serve"
          : absl::StrCat("the instance ", options.instance, " does not serve"));
}

}  // namespace

void AddHealthCommand(CommandLine& line) {
  const auto options = std::make_shared<HealthOptions>();
  CLI::App* const health = line.Add("health", "Asks whether the server serves",
                                    [=] { return Check(*options); });
  health
      ->add_option("--instance", options->instance,
                   "Asks whether this instance does")
      ->type_name("INSTANCE");
  health->add_flag("--watch", options->watch,
                   "Goes on, and prints a line at each change, until the "
                   "server ends");
  AddServerOptions(health, *options);
}

}  // namespace backboned::cli
