#include "client/cli/checkpoint_commands.h"

#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "client/cli/instance_commands.h"
#include "client/cli/instance_text.h"
#include "client/cli/output.h"
#include "client/cli/server_options.h"

namespace backboned::cli {
namespace {

struct SaveOptions : ServerOptions {
  std::string instance;
  std::string name;
  int32_t keep = 1;
};

struct LoadOptions : ServerOptions {
  std::string checkpoint;
  std::string name;
  int64_t number = 0;
  std::string device;
};

struct DropOptions : ServerOptions {
  std::vector<std::string> names;
  int64_t number = 0;
  bool yes = false;
};

// Returns a name without its owner.
std::string BareName(const std::string& name) {
  return name.substr(name.rfind('/') + 1);
}

std::string NumberedName(const v1::Checkpoint& checkpoint) {
  return absl::StrCat(checkpoint.name(), " ", checkpoint.number());
}

absl::Status Save(const SaveOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  v1::SaveCheckpointRequest request;
  request.set_instance(options.instance);
  request.set_name(options.name.empty() ? BareName(options.instance)
                                        : options.name);
  request.set_keep(options.keep);
  const auto answer = client->SaveCheckpoint(request);
  if (!answer.ok()) return answer.status();
  const v1::Checkpoint& saved = answer->checkpoint();
  if (options.json) {
    PrintJson(saved);
  } else {
    std::cout << NumberedName(saved) << "\n";
  }
  return absl::OkStatus();
}

absl::Status Load(const LoadOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  v1::LoadCheckpointRequest request;
  request.set_checkpoint(options.checkpoint);
  request.set_number(options.number);
  request.set_name(options.name.empty() ? BareName(options.checkpoint)
                                        : options.name);
  request.set_device(options.device);
  auto answer = client->LoadCheckpoint(request);
  if (!answer.ok()) return answer.status();
  if (options.json) {
    answer->mutable_instance()->clear_layout();
    PrintJson(*answer);
  } else {
    std::cout << answer->instance().name() << "\n";
  }
  return absl::OkStatus();
}

absl::Status ListCheckpoints(const ServerOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  v1::ListCheckpointsResponse all;
  v1::ListCheckpointsRequest request;
  do {
    const auto page = client->ListCheckpoints(request);
    if (!page.ok()) return page.status();
    all.mutable_checkpoints()->MergeFrom(page->checkpoints());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  if (options.json) {
    PrintJson(all);
    return absl::OkStatus();
  }
  Table table({{"OWNER"},
               {"NAME"},
               {"NUMBER", true},
               {"INSTANCE"},
               {"NETWORK"},
               {"VERSION", true},
               {"SIZE", true},
               {"AGE", true}});
  const absl::Time now = absl::Now();
  for (const v1::Checkpoint& checkpoint : all.checkpoints()) {
    const v1::Instance& saved = checkpoint.instance();
    table.Add({checkpoint.owner(), checkpoint.name(),
               absl::StrCat(checkpoint.number()), saved.name(),
               FormatNetwork(saved), FormatVersion(saved.version()),
               FormatBytes(checkpoint.bytes()),
               FormatAge(now - TimeOf(checkpoint.create_time()))});
  }
  Print(table);
  return absl::OkStatus();
}

absl::Status Drop(const DropOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  const std::string number =
      options.number == 0 ? "" : absl::StrCat(" ", options.number);
  if (!options.yes) {
    absl::Status asked = AskToDelete(absl::StrCat(
        "checkpoints ", absl::StrJoin(options.names, ", "), number));
    if (!asked.ok()) return asked;
  }
  return DeleteEach(options.names, options.json, [&](const std::string& name) {
    v1::DeleteCheckpointRequest request;
    request.set_checkpoint(name);
    request.set_number(options.number);
    return client->DeleteCheckpoint(request).status();
  });
}

}  // namespace

void AddCheckpointCommands(CommandLine& line) {
  CLI::App* const group = line.AddGroup(
      "checkpoint", "States of instances that the server keeps on its disk");

  const auto saved = std::make_shared<SaveOptions>();
  CLI::App* const save = line.Add(
      "save", "Saves an instance, and prints the checkpoint's name and number",
      [=] { return Save(*saved); }, group);
  save->add_option("INSTANCE", saved->instance, "Its name, or OWNER/NAME")
      ->required();
  save->add_option("NAME", saved->name,
                   "The checkpoint's name; else the instance's");
  save->add_option("--keep", saved->keep,
                   "Keeps the newest so many of this name")
      ->check(CLI::Range(1, 1'000'000))
      ->type_name("N")
      ->capture_default_str();
  AddServerOptions(save, *saved);

  const auto loaded = std::make_shared<LoadOptions>();
  CLI::App* const load = line.Add(
      "load", "Makes an instance in the state of a checkpoint",
      [=] { return Load(*loaded); }, group);
  load->add_option("CHECKPOINT", loaded->checkpoint, "The checkpoint's name")
      ->required();
  load->add_option("NAME", loaded->name,
                   "The instance's name; else the checkpoint's");
  load->add_option("--number", loaded->number, "Its number; else the newest")
      ->type_name("N");
  load->add_option("--device", loaded->device, "cpu, cuda, cuda:N or least")
      ->type_name("DEVICE");
  AddServerOptions(load, *loaded);

  const auto listed = std::make_shared<ServerOptions>();
  AddServerOptions(line.Add(
                       "ls", "Lists the checkpoints",
                       [=] { return ListCheckpoints(*listed); }, group),
                   *listed);

  const auto dropped = std::make_shared<DropOptions>();
  CLI::App* const rm = line.Add(
      "rm", "Deletes checkpoints", [=] { return Drop(*dropped); }, group);
  rm->add_option("CHECKPOINT", dropped->names, "Their names")->required();
  rm->add_option("--number", dropped->number, "The only one; else all")
      ->type_name("N");
  rm->add_flag("-y,--yes", dropped->yes, "Does not ask");
  AddServerOptions(rm, *dropped);
}

}  // namespace backboned::cli
