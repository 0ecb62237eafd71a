#include "client/cli/create_commands.h"

#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/random_id.h"
#include "client/cli/output.h"
#include "client/cli/server_options.h"

namespace backboned::cli {
namespace {

constexpr size_t kSuffixDigits = 6;

struct CreateOptions : ServerOptions {
  std::string benchmark;
  std::string architecture;
  std::vector<std::string> arguments;
  std::string name;
  std::optional<uint64_t> seed;
  std::string weights;
  bool partial = false;
  bool random_init = false;
  std::string device;
  std::string dtype = "float32";
  std::string precision;
  std::vector<std::string> frozen;
  int64_t feature_cache_bytes = 0;
  bool shared = false;
  bool read_only = false;
  bool exist_ok = false;
};

struct CloneOptions : ServerOptions {
  std::string source;
  std::string name;
  std::optional<int64_t> num_classes;
  std::optional<uint64_t> seed;
  bool with_grads = false;
  bool with_optimizer = false;
  bool shared = false;
  bool read_only = false;
};

// Reads a value of the kind that its text has.
v1::ArgumentValue ReadValue(const std::string& text) {
  v1::ArgumentValue value;
  int64_t integer = 0;
  double number = 0;
  if (absl::SimpleAtoi(text, &integer)) {
    value.set_int_value(integer);
  } else if (absl::SimpleAtod(text, &number)) {
    value.set_double_value(number);
  } else if (text == "true" || text == "false") {
    value.set_bool_value(text == "true");
  } else {
    value.set_string_value(text);
  }
  return value;
}

absl::Status ReadArguments(const std::vector<std::string>& texts,
                           v1::CreateInstanceRequest& request) {
  for (const std::string& text : texts) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--arg ", Quote(text), " is no NAME=VALUE, such as num_classes=10"));
    }
    (*request.mutable_arguments())[text.substr(0, equals)] =
        ReadValue(text.substr(equals + 1));
  }
  return absl::OkStatus();
}

v1::DataType DtypeNamed(const std::string& name) {
  v1::DataType dtype = v1::DATA_TYPE_UNSPECIFIED;
  v1::DataType_Parse("DATA_TYPE_" + absl::AsciiStrToUpper(name), &dtype);
  return dtype;
}

v1::Precision PrecisionNamed(const std::string& name) {
  v1::Precision precision = v1::PRECISION_UNSPECIFIED;
  if (!name.empty()) {
    v1::Precision_Parse("PRECISION_" + absl::AsciiStrToUpper(name), &precision);
  }
  return precision;
}

// Returns a name that nobody has: an instance that the caller does not name
// would die with this program.
std::string FreshName(const std::string& stem) {
  return absl::StrCat(stem, "-", RandomId().substr(0, kSuffixDigits));
}

absl::StatusOr<v1::CreateInstanceRequest> RequestOf(
    const CreateOptions& options) {
  v1::CreateInstanceRequest request;
  if (options.benchmark.empty() == options.architecture.empty()) {
    return absl::InvalidArgumentError(
        "name a BENCHMARK, or an --architecture, and not both");
  }
  const bool is_benchmark = options.architecture.empty();
  if (is_benchmark) {
    request.set_benchmark(options.benchmark);
  } else {
    request.set_architecture(options.architecture);
  }
  absl::Status read = ReadArguments(options.arguments, request);
  if (!read.ok()) return read;
  request.set_name(
      !options.name.empty()
          ? options.name
          : FreshName(is_benchmark ? options.benchmark : options.architecture));
  if (options.seed) request.set_seed(*options.seed);
  if (!options.weights.empty()) {
    request.mutable_weights()->set_name(options.weights);
    request.mutable_weights()->set_partial(options.partial);
  }
  request.set_random_init(options.random_init);
  request.set_device(options.device);
  request.set_dtype(DtypeNamed(options.dtype));
  request.set_precision(PrecisionNamed(options.precision));
  request.set_exist_ok(options.exist_ok);
  v1::InstanceSettings& settings = *request.mutable_settings();
  settings.set_read_only(options.read_only);
  settings.set_shared(options.shared);
  settings.set_feature_cache_bytes(options.feature_cache_bytes);
  for (const std::string& glob : options.frozen) settings.add_frozen(glob);
  return request;
}

// Prints the name of an instance that was made, for $(...).
template <typename Response>
absl::Status PrintMade(const absl::StatusOr<Response>& answer, bool is_json) {
  if (!answer.ok()) return answer.status();
  if (is_json) {
    Response made = *answer;
    made.mutable_instance()->clear_layout();
    PrintJson(made);
  } else {
    std::cout << answer->instance().name() << "\n";
  }
  return absl::OkStatus();
}

absl::Status Create(const CreateOptions& options) {
  const auto request = RequestOf(options);
  if (!request.ok()) return request.status();
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  return PrintMade(client->CreateInstance(*request), options.json);
}

absl::Status Clone(const CloneOptions& options) {
  const auto client = ConnectTo(options);
  if (!client.ok()) return client.status();
  v1::CloneInstanceRequest request;
  request.set_instance(options.source);
  request.set_name(options.name);
  request.set_with_grads(options.with_grads);
  request.set_with_optimizer(options.with_optimizer);
  if (options.num_classes) request.set_num_classes(*options.num_classes);
  if (options.seed) request.set_seed(*options.seed);
  if (options.shared || options.read_only) {
    v1::GetInstanceRequest source;
    source.set_instance(options.source);
    const auto answer = client->GetInstance(source);
    if (!answer.ok()) return answer.status();
    v1::InstanceSettings& settings = *request.mutable_settings();
    *settings.mutable_frozen() = answer->instance().settings().frozen();
    settings.set_shared(options.shared);
    settings.set_read_only(options.read_only);
  }
  return PrintMade(client->CloneInstance(request), options.json);
}

void AddCreate(CommandLine& line) {
  const auto options = std::make_shared<CreateOptions>();
  CLI::App* const create =
      line.Add("create", "Makes an instance, and prints its name",
               [=] { return Create(*options); });
  create->add_option("BENCHMARK", options->benchmark,
                     "The benchmark that it is for, such as seq-cifar10");
  const auto add = [create](const char* name, std::string& value,
                            const char* type, const char* help) {
    return create->add_option(name, value, help)->type_name(type);
  };
  add("--architecture", options->architecture, "NAME",
      "The architecture, such as resnet18, in place of a benchmark");
  create
      ->add_option("--arg", options->arguments,
                   "An argument of the architecture, such as num_classes=10")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  add("--name", options->name, "NAME",
      "Its name; else that of the benchmark and six random digits");
  create
      ->add_option("--seed", options->seed,
                   "Draws the parameters as torch.manual_seed does")
      ->type_name("N");
  CLI::Option* const weights =
      add("--weights", options->weights, "NAME",
          "Loads a file of the server's --weights-dir");
  create
      ->add_flag("--partial", options->partial,
                 "Loads of the weights what there is")
      ->needs(weights);
  create
      ->add_flag("--random-init", options->random_init,
                 "Keeps what was drawn where Mammoth loads weights")
      ->excludes(weights);
  add("--device", options->device, "DEVICE", "cpu, cuda, cuda:N or least");
  add("--dtype", options->dtype, "TYPE", "The type of its elements")
      ->check(CLI::IsMember({"float32", "float64", "float16", "bfloat16"}))
      ->capture_default_str();
  add("--precision", options->precision, "NUMBERS", "What it computes with")
      ->check(CLI::IsMember({"highest", "tf32", "bfloat16"}));
  create
      ->add_option("--frozen", options->frozen,
                   "Parameters that are not trained, such as 'layer1.*'")
      ->type_name("PATTERN")
      ->allow_extra_args(false);
  create
      ->add_option("--feature-cache-bytes", options->feature_cache_bytes,
                   "Bytes of its feature cache")
      ->type_name("N");
  create->add_flag("--shared", options->shared, "Lets everybody read it");
  create->add_flag("--read-only", options->read_only, "Lets nobody write it");
  create->add_flag("--exist-ok", options->exist_ok,
                   "Takes the one of this name if it is the same");
  AddServerOptions(create, *options);
}

void AddClone(CommandLine& line) {
  const auto options = std::make_shared<CloneOptions>();
  CLI::App* const clone =
      line.Add("clone", "Copies an instance", [=] { return Clone(*options); });
  clone->add_option("INSTANCE", options->source, "Its name, or OWNER/NAME")
      ->required();
  clone->add_option("NAME", options->name, "The copy's name")->required();
  clone
      ->add_option("--num-classes", options->num_classes,
                   "Gives the copy a fresh classifier of so many classes")
      ->type_name("N");
  clone->add_option("--seed", options->seed, "Draws that classifier")
      ->type_name("N");
  clone->add_flag("--with-grads", options->with_grads,
                  "Copies the gradients too");
  clone->add_flag("--with-optimizer", options->with_optimizer,
                  "Copies the optimizer and its state too");
  clone->add_flag("--shared", options->shared, "Lets everybody read the copy");
  clone->add_flag("--read-only", options->read_only,
                  "Lets nobody write the copy");
  AddServerOptions(clone, *options);
}

}  // namespace

void AddCreateCommands(CommandLine& line) {
  AddCreate(line);
  AddClone(line);
}

}  // namespace backboned::cli
