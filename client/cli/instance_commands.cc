#include "client/cli/instance_commands.h"

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/cli/instance_text.h"
#include "client/cli/output.h"
#include "client/cli/server_options.h"

namespace backboned::cli {
namespace {

struct LsOptions : ServerOptions {
  bool names = false;
};

struct ShowOptions : ServerOptions {
  std::string name;
  bool layout = false;
  bool digest = false;
};

struct RmOptions : ServerOptions {
  std::vector<std::string> names;
  bool yes = false;
};

// Counts parameters, which only an instance's layout tells: once for each
// network, since equal networks have equally many.
class ParameterCounts {
 public:
  explicit ParameterCounts(const client::Client& client) : client_(client) {}

  // Returns the number of parameters; nothing if the instance has gone.
  std::string Of(const v1::Instance& instance) {
    v1::Instance network;
    network.set_architecture(instance.architecture());
    *network.mutable_arguments() = instance.arguments();
    *network.mutable_columns() = instance.columns();
    const auto [found, is_new] = counts_.emplace(
        FormatNetwork(network) + absl::StrJoin(instance.columns(), ","), "");
    if (is_new) found->second = Ask(instance);
    return found->second;
  }

 private:
  std::string Ask(const v1::Instance& instance) const {
    v1::GetInstanceRequest request;
    request.set_instance(absl::StrCat(instance.owner(), "/", instance.name()));
    const auto answer = client_.GetInstance(request);
    if (!answer.ok()) return "";
    return FormatCount(answer->instance().layout().parameter_elements());
  }

  const client::Client& client_;
  std::map<std::string, std::string> counts_;
};

void PrintInstances(const client::Client& client,
                    const v1::ListInstancesResponse& list) {
  Table table({{"OWNER"},
               {"NAME"},
               {"NETWORK"},
               {"DEVICE"},
               {"PARAMETERS", true},
               {"VERSION", true},
               {"MEMORY", true},
               {"TAPES", true},
               {"IDLE", true},
               {"AGE", true},
               {"FLAGS"}});
  ParameterCounts counts(client);
  const absl::Time now = absl::Now();
  for (const v1::Instance& instance : list.instances()) {
    table.Add({instance.owner(), instance.name(), FormatNetwork(instance),
               instance.device(), counts.Of(instance),
               FormatVersion(instance.version()),
               FormatBytes(instance.memory_bytes()),
               absl::StrCat(instance.tape_count()), FormatIdle(instance),
               FormatAge(now - TimeOf(instance.create_time())),
               FormatFlags(instance)});
  }
  Print(table);
}

absl::Status ListInstances(const LsOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  const auto list = ListAll(*client);
  if (!list.ok()) return list.status();
  if (options.names) {
    const auto server = client->GetServer();
    if (!server.ok()) return server.status();
    for (const v1::Instance& instance : list->instances()) {
      std::cout << FormatName(server->principal(), instance) << "\n";
    }
  } else if (options.json) {
    PrintJson(*list);
  } else {
    PrintInstances(*client, *list);
  }
  return absl::OkStatus();
}

absl::Status ShowInstance(const ShowOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  v1::GetInstanceRequest request;
  request.set_instance(options.name);
  request.set_digest(options.digest);
  auto answer = client->GetInstance(request);
  if (!answer.ok()) return answer.status();
  v1::Instance& instance = *answer->mutable_instance();
  if (options.json) {
    if (!options.layout) instance.clear_layout();
    PrintJson(instance);
    return absl::OkStatus();
  }
  std::cout << Describe(instance);
  if (options.layout) std::cout << "\n" << DescribeLayout(instance.layout());
  return absl::OkStatus();
}

absl::Status RemoveInstances(const RmOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  if (!options.yes) {
    absl::Status asked = AskToDelete(absl::StrJoin(options.names, ", "));
    if (!asked.ok()) return asked;
  }
  return DeleteEach(options.names, options.json, [&](const std::string& name) {
    v1::DeleteInstanceRequest request;
    request.set_instance(name);
    return client->DeleteInstance(request).status();
  });
}

}  // namespace

void AddInstanceCommands(CommandLine& line) {
  const auto list = std::make_shared<LsOptions>();
  CLI::App* const ls = line.Add("ls", "Lists the instances",
                                [=] { return ListInstances(*list); });
  ls->add_flag("--names", list->names, "Prints the names alone");
  AddServerOptions(ls, *list);

  const auto shown = std::make_shared<ShowOptions>();
  CLI::App* const show = line.Add("show", "Tells all of an instance",
                                  [=] { return ShowInstance(*shown); });
  show->add_option("INSTANCE", shown->name, "Its name, or OWNER/NAME")
      ->required();
  show->add_flag("--layout", shown->layout, "Tells its tensors too");
  show->add_flag("--digest", shown->digest,
                 "Tells the SHA-256 of its parameters and buffers too");
  AddServerOptions(show, *shown);

  const auto removed = std::make_shared<RmOptions>();
  CLI::App* const rm = line.Add("rm", "Deletes instances",
                                [=] { return RemoveInstances(*removed); });
  rm->add_option("INSTANCE", removed->names, "Their names")->required();
  rm->add_flag("-y,--yes", removed->yes, "Does not ask");
  AddServerOptions(rm, *removed);
}

absl::StatusOr<v1::ListInstancesResponse> ListAll(
    const client::Client& client) {
  v1::ListInstancesResponse all;
  v1::ListInstancesRequest request;
  do {
    const auto page = client.ListInstances(request);
    if (!page.ok()) return page.status();
    all.mutable_instances()->MergeFrom(page->instances());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return all;
}

absl::Status AskToDelete(const std::string& what) {
  if (isatty(STDIN_FILENO) == 0) return absl::OkStatus();
  std::cerr << "delete " << what << "? [y/N] " << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  if (answer == "y" || answer == "yes") return absl::OkStatus();
  return absl::CancelledError("nothing is deleted");
}

absl::Status DeleteEach(
    const std::vector<std::string>& names, bool is_json,
    const std::function<absl::Status(const std::string&)>& remove) {
  absl::Status first;
  nlohmann::ordered_json deleted = nlohmann::ordered_json::array();
  for (const std::string& name : names) {
    absl::Status status = remove(name);
    if (status.ok()) {
      deleted.push_back(name);
      if (!is_json) std::cout << "deleted " << name << "\n";
    } else if (first.ok()) {
      first = std::move(status);
    } else {
      std::cerr << "backbonectl: " << status.message() << "\n";
    }
  }
  if (is_json) {
    std::cout << nlohmann::ordered_json{{"deleted", deleted}}.dump(1) << "\n";
  }
  return first;
}

}  // namespace backboned::cli
