#include "client/cli/top_command.h"

#include <unistd.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/instance_commands.h"
#include "client/cli/output.h"
#include "client/cli/screen.h"
#include "client/cli/server_options.h"
#include "client/cli/top_figures.h"

namespace backboned::cli {
namespace {

using nlohmann::ordered_json;

struct TopOptions : ServerOptions {
  double interval = 1;  // Seconds.
  bool once = false;
};

absl::StatusOr<Look> LookAt(const client::Client& client) {
  Look look;
  auto server = client.GetServer();
  if (!server.ok()) return server.status();
  look.time = absl::Now();
  auto list = ListAll(client);
  if (!list.ok()) return list.status();
  look.server = *std::move(server);
  look.list = *std::move(list);
  return look;
}

std::string FormatRate(double rate) {
  if (rate == 0) return "0";
  return rate < 100 ? absl::StrFormat("%.1f", rate)
                    : absl::StrFormat("%.0f", rate);
}

std::string FormatHead(const Look& look, const Figures& figures) {
  const v1::GetServerResponse& server = look.server;
  const std::string rights = absl::AsciiStrToLower(
      v1::Rights_Name(server.rights()).substr(sizeof("RIGHTS_") - 1));
  return absl::StrFormat(
      "backboned %s, torch %s; you are %s (%s); %d instances; over %.1f s\n",
      server.version(), server.torch_version(), server.principal(), rights,
      figures.instances.size(), absl::ToDoubleSeconds(figures.interval));
}

Table Devices(const Figures& figures) {
  Table table({{"DEVICE"},
               {"BUSY", true},
               {"QUEUED", true},
               {"BACKLOG", true},
               {"MEMORY", true},
               {"OF", true},
               {"MERGED/S", true},
               {"MOST CALLS"}});
  for (const DeviceFigures& device : figures.devices) {
    table.Add(
        {device.name, absl::StrFormat("%.0f%%", 100 * device.busy),
         absl::StrCat(device.queued),
         absl::StrFormat("%.0f ms", absl::ToDoubleMilliseconds(device.backlog)),
         FormatBytes(device.allocated_bytes),
         device.total_bytes > 0 ? FormatBytes(device.total_bytes) : "",
         FormatRate(device.merged), device.caller});
  }
  return table;
}

Table Instances(const Figures& figures) {
  Table table({{"OWNER"},
               {"NAME"},
               {"DEVICE"},
               {"CALLS/S", true},
               {"FORWARD", true},
               {"BACKWARD", true},
               {"STEP", true},
               {"WRITE", true},
               {"MEMORY", true},
               {"TAPES", true},
               {"NETWORK"}});
  for (const InstanceFigures& instance : figures.instances) {
    table.Add({instance.owner, instance.name, instance.device,
               FormatRate(instance.calls()), FormatRate(instance.forwards),
               FormatRate(instance.backwards), FormatRate(instance.steps),
               FormatRate(instance.writes), FormatBytes(instance.memory_bytes),
               FormatBytes(instance.tape_bytes), instance.network});
  }
  return table;
}

Table Principals(const Figures& figures) {
  Table table({{"PRINCIPAL"},
               {"INSTANCES", true},
               {"CALLS/S", true},
               {"MEMORY", true},
               {"OF IT SHARED", true},
               {"TAPES", true}});
  for (const PrincipalFigures& principal : figures.principals) {
    table.Add({principal.name, absl::StrCat(principal.instances),
               FormatRate(principal.calls), FormatBytes(principal.memory_bytes),
               FormatBytes(principal.shared_bytes),
               FormatBytes(principal.tape_bytes)});
  }
  return table;
}

std::string FormatFigures(const Look& look, const Figures& figures) {
  const bool is_bold = HasColours();
  return absl::StrCat(FormatHead(look, figures), "\n",
                      Devices(figures).Format(is_bold), "\n",
                      Principals(figures).Format(is_bold), "\n",
                      Instances(figures).Format(is_bold));
}

ordered_json JsonOf(const Figures& figures) {
  ordered_json json = {
      {"interval_seconds", absl::ToDoubleSeconds(figures.interval)},
      {"devices", ordered_json::array()},
      {"principals", ordered_json::array()},
      {"instances", ordered_json::array()}};
  for (const DeviceFigures& device : figures.devices) {
    json["devices"].push_back(
        {{"name", device.name},
         {"busy", device.busy},
         {"queued", device.queued},
         {"backlog_seconds", absl::ToDoubleSeconds(device.backlog)},
         {"allocated_bytes", device.allocated_bytes},
         {"total_bytes", device.total_bytes},
         {"batched_samples_per_second", device.samples},
         {"merged_forwards_per_second", device.merged},
         {"most_calls", device.caller}});
  }
  for (const PrincipalFigures& principal : figures.principals) {
    json["principals"].push_back({{"name", principal.name},
                                  {"instances", principal.instances},
                                  {"calls_per_second", principal.calls},
                                  {"memory_bytes", principal.memory_bytes},
                                  {"shared_bytes", principal.shared_bytes},
                                  {"tape_bytes", principal.tape_bytes}});
  }
  for (const InstanceFigures& instance : figures.instances) {
    json["instances"].push_back({{"owner", instance.owner},
                                 {"name", instance.name},
                                 {"network", instance.network},
                                 {"device", instance.device},
                                 {"calls_per_second", instance.calls()},
                                 {"forwards_per_second", instance.forwards},
                                 {"backwards_per_second", instance.backwards},
                                 {"steps_per_second", instance.steps},
                                 {"writes_per_second", instance.writes},
                                 {"memory_bytes", instance.memory_bytes},
                                 {"tapes", instance.tapes},
                                 {"tape_bytes", instance.tape_bytes}});
  }
  return json;
}

absl::Status PrintOnce(const client::Client& client,
                       const TopOptions& options) {
  const auto before = LookAt(client);
  if (!before.ok()) return before.status();
  absl::SleepFor(absl::Seconds(options.interval));
  const auto after = LookAt(client);
  if (!after.ok()) return after.status();
  const Figures figures = Between(*before, *after);
  if (options.json) {
    std::cout << JsonOf(figures).dump(1) << "\n";
  } else {
    std::cout << FormatFigures(*after, figures);
  }
  return absl::OkStatus();
}

// Shows the table until somebody types q.
absl::Status Follow(const client::Client& client, absl::Duration interval) {
  absl::StatusOr<Look> before = LookAt(client);
  if (!before.ok()) return before.status();
  Screen screen;
  screen.Show(FormatFigures(*before, Between(*before, *before)));
  absl::Time next = absl::Now() + interval;
  while (true) {
    const std::optional<char> key = screen.WaitForKey(next);
    if (key == 'q' || key == 'Q') return absl::OkStatus();
    if (key.has_value()) continue;
    absl::StatusOr<Look> after = LookAt(client);
    if (!after.ok()) return after.status();
    screen.Show(FormatFigures(*after, Between(*before, *after)));
    before = std::move(after);
    next = absl::Now() + interval;
  }
}

absl::Status Top(const TopOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  const bool is_once =
      options.once || options.json || isatty(STDOUT_FILENO) == 0;
  return is_once ? PrintOnce(*client, options)
                 : Follow(*client, absl::Seconds(options.interval));
}

}  // namespace

void AddTopCommand(CommandLine& line) {
  const auto options = std::make_shared<TopOptions>();
  CLI::App* const top =
      line.Add("top",
               "Shows what the server does, until you type q; where the output "
               "is no terminal, once",
               [=] { return Top(*options); });
  top->add_flag("--once", options->once,
                "Prints one table, of the next interval");
  top->add_option("--interval", options->interval, "Seconds between tables")
      ->check(CLI::Range(0.1, 3600.0))
      ->type_name("SECONDS")
      ->capture_default_str();
  AddServerOptions(top, *options);
}

}  // namespace backboned::cli
