#include "client/cli/params_commands.h"

#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cli/instance_text.h"
#include "client/cli/output.h"
#include "client/cli/output_file.h"
#include "client/cli/params_file.h"
#include "client/cli/progress.h"
#include "client/cli/server_options.h"

namespace backboned::cli {
namespace {

using client::Backbone;

// Reads of an instance that changes meanwhile.
constexpr int kAttempts = 5;

struct GetOptions : ServerOptions {
  std::string name;
  std::string output;
};

struct SetOptions : ServerOptions {
  std::string name;
  std::string file;
  bool partial = false;
  std::optional<uint64_t> if_version;
};

// An instance's parameters and buffers of one version.
struct StateRead {
  client::Received<v1::GetParamsResult> params;
  client::Received<v1::GetBuffersResult> buffers;
};

v1::IfVersion Exactly(const v1::Version& version) {
  v1::IfVersion condition;
  condition.set_uid(version.uid());
  condition.set_params(version.params());
  condition.set_buffers(version.buffers());
  return condition;
}

absl::StatusOr<v1::Instance> Find(const client::Client& client,
                                  const std::string& name) {
  v1::GetInstanceRequest request;
  request.set_instance(name);
  auto answer = client.GetInstance(request);
  if (!answer.ok()) return answer.status();
  return std::move(*answer->mutable_instance());
}

absl::StatusOr<StateRead> ReadOnce(const Backbone& backbone,
                                   const v1::Instance& instance) {
  StateRead state;
  v1::GetParamsRequest request;
  request.mutable_if_version()->set_uid(instance.version().uid());
  auto params = backbone.GetParams(std::move(request));
  if (!params.ok()) return params.status();
  state.params = *std::move(params);
  if (instance.layout().buffers_size() == 0) return state;
  v1::GetBuffersRequest rest;
  *rest.mutable_if_version() = Exactly(state.params.result.version());
  auto buffers = backbone.GetBuffers(std::move(rest));
  if (!buffers.ok()) return buffers.status();
  state.buffers = *std::move(buffers);
  return state;
}

absl::Status WriteState(OutputFile& file, const v1::Layout& layout,
                        const StateRead& state) {
  const auto& specs = state.buffers.result.buffers();
  const auto entries =
      EntriesOf(layout, state.params.result.spec().dtype(),
                std::vector<v1::TensorSpec>(specs.begin(), specs.end()));
  if (!entries.ok()) return entries.status();
  const std::string header = SafetensorsHeader(*entries);
  absl::Status status = file.Write(std::as_bytes(std::span(header)));
  for (const auto& tensors :
       {state.params.tensors.spans(), state.buffers.tensors.spans()}) {
    for (const auto bytes : tensors) {
      if (status.ok()) status = file.Write(bytes);
    }
  }
  if (!status.ok()) return status;
  return file.Finish();
}

void Tell(const ServerOptions& options, const std::string& did,
          const v1::Version& version) {
  if (options.json) {
    PrintJson(version);
  } else {
    std::cout << did << ", version " << FormatVersion(version) << "\n";
  }
}

absl::Status Get(const GetOptions& options) {
  Progress progress("getting " + options.name);
  const auto client =
      ConnectTo(options, [&progress](int64_t bytes) { progress.Add(bytes); });
  if (!client.ok()) return client.status();
  const auto instance = Find(*client, options.name);
  if (!instance.ok()) return instance.status();
  absl::StatusOr<OutputFile> file = OutputFile::Create(options.output);
  if (!file.ok()) return file.status();
  const Backbone backbone = client->backbone(options.name);
  absl::StatusOr<StateRead> state = absl::UnknownError("");
  for (int i = 0; i < kAttempts; ++i) {
    progress.Expect(StateBytes(instance->layout(), instance->dtype()));
    state = ReadOnce(backbone, *instance);
    if (!absl::IsAborted(state.status())) break;
  }
  if (!state.ok()) return state.status();
  absl::Status written = WriteState(*file, instance->layout(), *state);
  if (!written.ok()) return written;
  progress.End();
  Tell(options, absl::StrCat("wrote ", options.output),
       state->params.result.version());
  return absl::OkStatus();
}

absl::StatusOr<v1::Version> SendBuffers(const Backbone& backbone,
                                        const v1::Layout& layout,
                                        const FileParams& file,
                                        const v1::IfVersion& condition) {
  v1::SetBuffersHeader header;
  *header.mutable_if_version() = condition;
  client::Sources sources;
  for (size_t i = 0; i < file.buffers.size(); ++i) {
    header.mutable_selection()->add_globs(
        layout.buffers(file.buffers[i]).name());
    *header.add_buffers() = file.buffer_specs[i];
    sources.push_back(file.buffer_bytes[i]);
  }
  if (std::ssize(file.buffers) == layout.buffers_size()) {
    header.clear_selection();
  }
  const auto answer = backbone.SetBuffers(std::move(header), sources);
  if (!answer.ok()) return answer.status();
  return answer->version();
}

absl::StatusOr<v1::Version> SendParams(const Backbone& backbone,
                                       const v1::Layout& layout,
                                       const FileParams& file,
                                       const v1::IfVersion& condition) {
  v1::SetParamsHeader header;
  *header.mutable_if_version() = condition;
  int64_t elements = 0;
  for (const int p : file.parameters) {
    const v1::Parameter& parameter = layout.parameters(p);
    header.mutable_selection()->add_globs(parameter.name());
    int64_t size = 1;
    for (const int64_t side : parameter.shape()) size *= side;
    elements += size;
  }
  if (std::ssize(file.parameters) == layout.parameters_size()) {
    header.clear_selection();
  }
  header.mutable_spec()->set_dtype(file.dtype);
  header.mutable_spec()->add_shape(elements);
  const auto answer = backbone.SetParams(file.params, std::move(header));
  if (!answer.ok()) return answer.status();
  return answer->version();
}

// Sends the parameters, then the buffers, to the instance that was looked at.
// Returns its version then.
absl::StatusOr<v1::Version> Send(const SetOptions& options,
                                 const client::Client& client,
                                 const v1::Instance& instance,
                                 const FileParams& file) {
  const Backbone backbone = client.backbone(options.name);
  v1::Version version = instance.version();
  v1::IfVersion condition;
  condition.set_uid(version.uid());
  if (options.if_version) condition.set_params(*options.if_version);
  if (!file.parameters.empty()) {
    const auto sent = SendParams(backbone, instance.layout(), file, condition);
    if (!sent.ok()) return sent.status();
    version = *sent;
    condition.clear_params();
  }
  if (!file.buffers.empty()) {
    const auto sent = SendBuffers(backbone, instance.layout(), file, condition);
    if (!sent.ok()) return sent.status();
    version = *sent;
  }
  return version;
}

absl::Status Set(const SetOptions& options) {
  Progress progress("setting " + options.name);
  const auto client =
      ConnectTo(options, [&progress](int64_t bytes) { progress.Add(bytes); });
  if (!client.ok()) return client.status();
  const auto instance = Find(*client, options.name);
  if (!instance.ok()) return instance.status();
  const auto file =
      ReadParams(options.file, instance->layout(), options.partial);
  if (!file.ok()) return file.status();
  int64_t total = std::ssize(file->params);
  for (const auto& buffer : file->buffer_bytes) total += std::ssize(buffer);
  progress.Expect(total);
  const auto version = Send(options, *client, *instance, *file);
  if (!version.ok()) return version.status();
  progress.End();
  Tell(options,
       absl::StrCat("set ", file->parameters.size(), " parameters and ",
                    file->buffers.size(), " buffers of ", options.name),
       *version);
  return absl::OkStatus();
}

}  // namespace

void AddParamsCommands(CommandLine& line) {
  CLI::App* const group = line.AddGroup(
      "params", "Parameters and buffers, to and from safetensors files");

  const auto got = std::make_shared<GetOptions>();
  CLI::App* const get = line.Add(
      "get", "Writes parameters and buffers of one version to a file",
      [=] { return Get(*got); }, group);
  get->add_option("INSTANCE", got->name, "Its name, or OWNER/NAME")->required();
  get->add_option("-o,--output", got->output,
                  "The file, which is replaced when all is there")
      ->type_name("FILE")
      ->required();
  AddServerOptions(get, *got);

  const auto set = std::make_shared<SetOptions>();
  CLI::App* const command = line.Add(
      "set", "Sets the parameters and buffers that a file has",
      [=] { return Set(*set); }, group);
  command->add_option("INSTANCE", set->name, "Its name, or OWNER/NAME")
      ->required();
  command->add_option("FILE", set->file, "A safetensors file")->required();
  command->add_flag("--partial", set->partial,
                    "Takes what fits, in place of all or nothing");
  command
      ->add_option("--if-version", set->if_version,
                   "Changes nothing if the parameters have another version")
      ->type_name("N");
  AddServerOptions(command, *set);
}

}  // namespace backboned::cli
