#include "client/cli/usage_command.h"

#include <google/protobuf/util/time_util.h>

#include <CLI/App.hpp>
#include <cstdint>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "backboned/v1/instance_service.pb.h"
#include "backboned/v1/usage.pb.h"
#include "client/cli/output.h"
#include "client/cli/server_options.h"

namespace backboned::cli {
namespace {

using google::protobuf::util::TimeUtil;

const std::map<std::string, v1::UsageBy> kBy = {
    {"user", v1::USAGE_BY_USER},
    {"instance", v1::USAGE_BY_INSTANCE},
    {"label", v1::USAGE_BY_LABEL}};

struct UsageOptions {
  ServerOptions server;
  std::vector<std::string> by = {"user"};
  std::string since;
  std::string until;
  bool csv = false;
};

absl::StatusOr<v1::ListUsageRequest> RequestOf(const UsageOptions& options) {
  v1::ListUsageRequest request;
  for (const std::string& by : options.by) request.add_by(kBy.at(by));
  const auto set = [&](const char* option, const std::string& text,
                       auto* (v1::ListUsageRequest::*field)()) {
    if (text.empty()) return absl::OkStatus();
    const absl::StatusOr<absl::Time> time = ReadTime(option, text, absl::Now());
    if (!time.ok()) return time.status();
    *(request.*field)() =
        TimeUtil::SecondsToTimestamp(absl::ToUnixSeconds(*time));
    return absl::OkStatus();
  };
  absl::Status valid =
      set("--since", options.since, &v1::ListUsageRequest::mutable_since);
  if (valid.ok()) {
    valid = set("--until", options.until, &v1::ListUsageRequest::mutable_until);
  }
  if (!valid.ok()) return valid;
  return request;
}

// Asks for all pages, and returns them as one.
absl::StatusOr<v1::ListUsageResponse> AskAll(const client::Client& client,
                                             v1::ListUsageRequest request) {
  v1::ListUsageResponse all;
  do {
    absl::StatusOr<v1::ListUsageResponse> page = client.ListUsage(request);
    if (!page.ok()) return page.status();
    request.set_page_token(page->next_page_token());
    all.MergeFrom(*page);
    *all.mutable_device_busy() = page->device_busy();
  } while (!request.page_token().empty());
  all.clear_next_page_token();
  return all;
}

absl::Duration DurationOf(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) +
         absl::Nanoseconds(duration.nanos());
}

std::string FormatTime(absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  if (seconds < 120) return absl::StrFormat("%.1f s", seconds);
  if (seconds < 7200) return absl::StrFormat("%.1f min", seconds / 60);
  return absl::StrFormat("%.1f h", seconds / 3600);
}

const std::string& NameOf(const v1::UsageRow& row, const std::string& by) {
  switch (kBy.at(by)) {
    case v1::USAGE_BY_INSTANCE:
      return row.instance();
    case v1::USAGE_BY_LABEL:
      return row.label();
    default:
      return row.principal();
  }
}

void PrintTable(const v1::ListUsageResponse& usage,
                const std::vector<std::string>& by) {
  std::vector<Table::Column> heading;
  for (const std::string& each : by) {
    heading.push_back({absl::AsciiStrToUpper(each)});
  }
  for (const char* const name :
       {"CALLS", "DEVICE", "FLOP", "RECEIVED", "SENT"}) {
    heading.push_back({name, /*is_number=*/true});
  }
  Table table(std::move(heading));
  for (const v1::UsageRow& row : usage.rows()) {
    std::vector<std::string> cells;
    for (const std::string& each : by) {
      cells.push_back(NameOf(row, each));
    }
    for (std::string cell :
         {FormatCount(row.calls()), FormatTime(DurationOf(row.device_time())),
          FormatFlops(row.flops()), FormatBytes(row.received_bytes()),
          FormatBytes(row.sent_bytes())}) {
      cells.push_back(std::move(cell));
    }
    table.Add(std::move(cells));
  }
  Print(table);
  std::cout << "devices worked " << FormatTime(DurationOf(usage.device_busy()))
            << " in all\n";
}

// Every value is a number, a time, or a name without commas and quotes.
void PrintCsv(const v1::ListUsageResponse& usage) {
  std::cout << "principal,instance,instance_uid,label,begin,end,calls,"
               "device_seconds,flops,received_bytes,sent_bytes\n";
  for (const v1::UsageRow& row : usage.rows()) {
    std::cout << absl::StrFormat(
        "%s,%s,%s,%s,%s,%s,%d,%.9f,%.0f,%d,%d\n", row.principal(),
        row.instance(), row.instance_uid(), row.label(),
        TimeUtil::ToString(row.begin()), TimeUtil::ToString(row.end()),
        row.calls(), absl::ToDoubleSeconds(DurationOf(row.device_time())),
        row.flops(), row.received_bytes(), row.sent_bytes());
  }
}

absl::Status PrintUsage(const UsageOptions& options) {
  const absl::StatusOr<v1::ListUsageRequest> request = RequestOf(options);
  if (!request.ok()) return request.status();
  const absl::StatusOr<client::Client> client = ConnectTo(options.server);
  if (!client.ok()) return client.status();
  const absl::StatusOr<v1::ListUsageResponse> usage = AskAll(*client, *request);
  if (!usage.ok()) return usage.status();
  if (options.server.json) {
    PrintJson(*usage);
  } else if (options.csv) {
    PrintCsv(*usage);
  } else {
    PrintTable(*usage, options.by);
  }
  return absl::OkStatus();
}

}  // namespace

void AddUsageCommand(CommandLine& line) {
  const auto options = std::make_shared<UsageOptions>();
  CLI::App* const command =
      line.Add("usage",
               "Prints device time, operations and bytes that callers have "
               "used: yours, or, to admins, everybody's",
               [options] { return PrintUsage(*options); });
  command
      ->add_option("--by", options->by,
                   "What a row is of: user, instance, label, or several")
      ->delimiter(',')
      ->check(CLI::IsMember(kBy))
      ->capture_default_str();
  command
      ->add_option("--since", options->since,
                   "From when: 30d or 12h ago, or a time in UTC, 2027-03-31 or "
                   "2027-03-31T14:00; by whole hours")
      ->type_name("TIME");
  command->add_option("--until", options->until, "Until when")
      ->type_name("TIME");
  CLI::Option* const csv =
      command->add_flag("--csv", options->csv, "Prints comma-separated values");
  AddServerOptions(command, options->server);
  csv->excludes("--json");
}

absl::StatusOr<absl::Time> ReadTime(const std::string& option,
                                    const std::string& text, absl::Time now) {
  absl::Time time;
  std::string error;
  for (const char* const format : {"%Y-%m-%d", "%Y-%m-%dT%H:%M"}) {
    if (absl::ParseTime(format, text, &time, &error)) return time;
  }
  const std::map<char, absl::Duration> units = {{'d', absl::Hours(24)},
                                                {'h', absl::Hours(1)}};
  const auto unit = text.empty() ? units.end() : units.find(text.back());
  int64_t count = 0;
  if (unit != units.end() &&
      absl::SimpleAtoi(text.substr(0, text.size() - 1), &count) && count >= 0 &&
      count <= 100'000) {
    return now - count * unit->second;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(option, " ", text,
                   " is no time; it is like 30d, 12h, 2027-03-31 or "
                   "2027-03-31T14:00"));
}

std::string FormatFlops(double flops) {
  const char* const units[] = {"", " k", " M", " G", " T", " P", " E"};
  size_t unit = 0;
  while (flops >= 1000 && unit + 1 < std::size(units)) {
    flops /= 1000;
    ++unit;
  }
  return absl::StrFormat("%.*f%s", unit > 0 && flops < 100 ? 1 : 0, flops,
                         units[unit]);
}

}  // namespace backboned::cli
