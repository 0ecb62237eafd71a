#include "server/instances/blueprint.h"

#include <cmath>
#include <cstddef>
#include <optional>
#include <random>
#include <span>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backbones/benchmarks.h"
#include "backbones/dtypes.h"
#include "backbones/registry.h"
#include "base/errors.h"
#include "base/names.h"
#include "base/random_id.h"
#include "server/device/chores.h"
#include "server/device/host_view.h"

namespace backboned {
namespace {

// More channels than images have: a list's descriptions contain them all.
constexpr size_t kMaxChannels = 1024;

absl::Status CheckNormalization(const Blueprint& plan) {
  const Normalization& normalization = plan.normalization;
  if (normalization.mean.size() != normalization.std.size()) {
    return InvalidOption(absl::StrCat(
        "normalization has ", normalization.mean.size(), " means and ",
        normalization.std.size(), " standard deviations"));
  }
  if (normalization.mean.size() > kMaxChannels) {
    return InvalidOption(
        absl::StrCat("normalization has ", normalization.mean.size(),
                     " channels, at most ", kMaxChannels, " are allowed"));
  }
  for (double mean : normalization.mean) {
    if (!std::isfinite(static_cast<float>(mean))) {
      return InvalidOption("normalization has a mean that is not finite");
    }
  }
  for (double deviation : normalization.std) {
    const auto narrow = static_cast<float>(deviation);
    if (!std::isfinite(narrow) || narrow <= 0) {
      return InvalidOption(
          "normalization has a standard deviation that is not positive and "
          "finite");
    }
  }
  const std::vector<int64_t>& shape = plan.architecture->input_shape();
  if (normalization.mean.empty() || shape.empty()) return absl::OkStatus();
  if (static_cast<int64_t>(normalization.mean.size()) != shape[0]) {
    return InvalidOption(absl::StrCat("normalization has ",
                                      normalization.mean.size(),
                                      " channels, the input has ", shape[0]));
  }
  return absl::OkStatus();
}

absl::StatusOr<at::Generator> MakeGenerator(const CreateOptions& options) {
  if (options.rng_state.empty()) {
    return SeededGenerator(options.seed.has_value() ? *options.seed
                                                    : std::random_device()());
  }
  if (options.seed.has_value()) {
    return InvalidOption("give either seed or rng_state, not both");
  }
  return GeneratorFromState(std::as_bytes(std::span(options.rng_state)));
}

std::vector<std::string> NamesOf(
    const std::vector<std::shared_ptr<Instance>>& instances) {
  std::vector<std::string> names;
  for (const auto& instance : instances) names.push_back(instance->FullName());
  return names;
}

std::vector<std::string> UidsOf(
    const std::vector<std::shared_ptr<Instance>>& instances) {
  std::vector<std::string> uids;
  for (const auto& instance : instances) uids.push_back(instance->uid());
  return uids;
}

// Returns OK if `column` can be an earlier column of the planned instance.
absl::Status CheckColumn(const CreateOptions& options, const Blueprint& plan,
                         const DeviceWorker& worker, const Instance& column) {
  const auto differs = [&](std::string_view has, std::string_view expected) {
    return InvalidOption(absl::StrCat("column ", Quote(column.FullName()), " ",
                                      std::string(has), ", expected ",
                                      std::string(expected)));
  };
  const Architecture& theirs = column.architecture();
  const std::string& name = plan.architecture->name();
  if (theirs.name() != name) return differs("is a " + theirs.name(), name);
  for (const std::string& argument :
       (*FindArchitecture(name))->later_columns->common_arguments) {
    const std::string has = FormatArgument(theirs.arguments().at(argument));
    const std::string expected =
        FormatArgument(plan.architecture->arguments().at(argument));
    if (has != expected) {
      return differs(absl::StrCat("has ", argument, " ", has), expected);
    }
  }
  const at::ScalarType dtype = DtypeOf(*column.state());
  if (dtype != options.dtype) {
    return differs("has dtype " + DtypeName(dtype), DtypeName(options.dtype));
  }
  if (&column.worker() != &worker) {
    return differs("is on " + column.worker().device().str(),
                   worker.device().str());
  }
  return absl::OkStatus();
}

// These return how `instance` differs from the plan. Empty: not at all.
std::string MadeOtherwise(const Instance& instance,
                          const CreateOptions& options, const Blueprint& plan) {
  const Architecture& present = instance.architecture();
  if (present.name() != plan.architecture->name() ||
      present.arguments() != plan.architecture->arguments()) {
    return absl::StrCat("is a ", present.name(), " with other arguments");
  }
  if (instance.identity().column_uids != UidsOf(options.columns)) {
    return "has other earlier columns";
  }
  if (instance.identity().normalization != plan.normalization) {
    return "has another normalization";
  }
  return "";
}

std::string BeganOtherwise(const Instance& instance,
                           const CreateOptions& options,
                           const DeviceWorker& worker) {
  if (&instance.worker() != &worker) {
    return absl::StrCat("is on ", instance.worker().device().str(), ", not ",
                        worker.device().str());
  }
  const at::ScalarType dtype = DtypeOf(*instance.state());
  if (dtype != options.dtype) {
    return absl::StrCat("has dtype ", DtypeName(dtype), ", not ",
                        DtypeName(options.dtype));
  }
  const std::string& weights = instance.identity().weights;
  const bool other_weights =
      options.weights.has_value() && options.weights->name != weights;
  if (other_weights || (options.random_init && !weights.empty())) {
    return absl::StrCat("began with ", weights.empty()
                                           ? "no weights"
                                           : "weights " + Quote(weights));
  }
  return "";
}

std::string SetOtherwise(const Settings& present, const Settings& wanted) {
  if (present.read_only != wanted.read_only) {
    return present.read_only ? "is read-only" : "is not read-only";
  }
  if (present.frozen != wanted.frozen) return "has other frozen parameters";
  if (wanted.feature_cache_bytes != 0 &&
      present.feature_cache_bytes != wanted.feature_cache_bytes) {
    return absl::StrCat("has a feature cache of ", present.feature_cache_bytes,
                        " bytes, not ", wanted.feature_cache_bytes);
  }
  return "";
}

}  // namespace

absl::StatusOr<Blueprint> MakeBlueprint(const CreateOptions& options) {
  Blueprint plan;
  std::string architecture = options.architecture;
  Arguments arguments = options.arguments;
  if (options.benchmark.empty() == options.architecture.empty()) {
    return InvalidOption(
        options.benchmark.empty()
            ? "the request has neither benchmark nor architecture; give one of "
              "them"
            : "give either benchmark or architecture, not both");
  }
  if (!options.benchmark.empty()) {
    absl::StatusOr<const Benchmark*> benchmark =
        FindBenchmark(options.benchmark);
    if (!benchmark.ok()) return benchmark.status();
    plan.benchmark = (*benchmark)->name;
    plan.normalization = {(*benchmark)->mean, (*benchmark)->std};
    architecture = (*benchmark)->architecture;
    for (const auto& argument : (*benchmark)->arguments)
      arguments.insert(argument);
  }
  absl::StatusOr<std::shared_ptr<const Architecture>> built =
      BuildArchitecture(architecture, arguments, options.columns.size());
  if (!built.ok()) return built.status();
  plan.architecture = *std::move(built);
  plan.pretrained = (*FindArchitecture(architecture))->pretrained;
  plan.source =
      plan.benchmark.empty() ? plan.architecture->name() : plan.benchmark;
  if (options.normalization.has_value())
    plan.normalization = *options.normalization;
  return plan;
}

absl::Status CheckBlueprint(const CreateOptions& options,
                            const Blueprint& plan) {
  absl::Status status = CheckNormalization(plan);
  if (status.ok()) {
    status =
        TrainedUnder(options.settings, plan.architecture->layout()).status();
  }
  if (status.ok() && !options.name.empty()) status = CheckName(options.name);
  return status;
}

absl::Status CheckWeights(const CreateOptions& options, const Blueprint& plan) {
  if (options.weights.has_value() && options.random_init) {
    return InvalidOption("give either weights or random_init, not both");
  }
  if (!plan.pretrained || options.weights.has_value() || options.random_init) {
    return absl::OkStatus();
  }
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kWeightsRequired,
               absl::StrCat("Mammoth uses ", plan.architecture->name(),
                            " pretrained; give weights, or set random_init"));
}

absl::Status CheckColumns(const CreateOptions& options, const Blueprint& plan,
                          const DeviceWorker& worker) {
  for (const auto& column : options.columns) {
    absl::Status fits = CheckColumn(options, plan, worker, *column);
    if (!fits.ok()) return fits;
  }
  return absl::OkStatus();
}

absl::StatusOr<Created> Existing(std::shared_ptr<Instance> instance,
                                 const CreateOptions& options,
                                 const Blueprint& plan,
                                 const DeviceWorker& worker) {
  std::string why;
  if (!options.exist_ok) {
    why = absl::StrCat("instance ", Quote(options.name),
                       " exists already; choose another name, or set exist_ok");
  } else {
    std::string difference = MadeOtherwise(*instance, options, plan);
    if (difference.empty()) {
      difference = BeganOtherwise(*instance, options, worker);
    }
    if (difference.empty()) {
      difference = SetOtherwise(instance->settings(), options.settings);
    }
    if (!difference.empty()) {
      why = absl::StrCat("instance ", Quote(options.name),
                         " exists already, but ", difference);
    }
  }
  if (why.empty()) {
    return Created{.instance = std::move(instance), .existed = true};
  }
  return Error(absl::StatusCode::kAlreadyExists, Reason::kInstanceExists, why);
}

absl::StatusOr<State> Draw(const Layout& layout, const at::Generator& generator,
                           at::ScalarType dtype, InitialDraw::Part part,
                           const DeviceWorker::Request& caller,
                           DeviceWorker& chores) {
  State state;
  InitialDraw draw(layout, generator, dtype, part);
  absl::StatusOr<DeviceWorker::Times> drawn =
      RunChore(chores, caller, [&]() -> absl::StatusOr<bool> {
        if (draw.Advance(kDrawnInATurn)) return true;
        state = draw.Take();
        return false;
      });
  if (!drawn.ok()) return drawn.status();
  return state;
}

absl::Status MoveTo(DeviceWorker& worker, const DeviceWorker::Request& caller,
                    State& state) {
  if (worker.device().is_cpu()) return absl::OkStatus();
  return worker
      .Run(caller,
           [&] {
             for (auto* tensors : {&state.params, &state.buffers}) {
               for (at::Tensor& tensor : *tensors) {
                 tensor = OnDevice(tensor, worker.device());
               }
             }
             return absl::OkStatus();
           })
      .status();
}

absl::StatusOr<Beginning> Begin(const CreateOptions& options,
                                const Blueprint& plan,
                                const WeightsFolder& folder,
                                DeviceWorker& chores, DeviceWorker& worker) {
  const Layout& layout = plan.architecture->layout();
  absl::StatusOr<at::Generator> generator = MakeGenerator(options);
  if (!generator.ok()) return generator.status();
  std::optional<PreparedWeights> weights;
  if (options.weights.has_value()) {
    absl::StatusOr<PreparedWeights> prepared =
        folder.Prepare(*options.weights, layout);
    if (!prepared.ok()) return prepared.status();
    weights.emplace(*std::move(prepared));
  }
  absl::StatusOr<State> state =
      Draw(layout, *generator, options.dtype, InitialDraw::Part::kAll,
           options.caller, chores);
  if (!state.ok()) return state.status();
  Beginning begin = {.rng_state = GeneratorState(*generator)};
  std::vector<Column> columns;
  for (const auto& column : options.columns) {
    columns.push_back(
        {.layout = &column->architecture().layout(), .state = column->state()});
  }
  *state = *WithColumns(*state, layout, columns);
  if (weights.has_value()) {
    absl::StatusOr<DeviceWorker::Times> loaded = RunChore(
        chores, options.caller, [&] { return weights->LoadNext(*state); });
    if (!loaded.ok()) return loaded.status();
    begin.weights_sha256 = weights->TakeSha256();
    begin.loaded = weights->plan();
  }
  absl::Status moved = MoveTo(worker, options.caller, *state);
  if (!moved.ok()) return moved;
  begin.state = std::make_shared<const State>(*std::move(state));
  return begin;
}

Instance::Identity IdentityOf(const CreateOptions& options,
                              const Blueprint& plan, const Beginning& begin) {
  const bool unnamed = options.name.empty();
  return {.name = unnamed
                      ? absl::StrCat(plan.source, "-", RandomId().substr(0, 8))
                      : options.name,
          .owner = options.owner,
          .session = options.session,
          .benchmark = plan.benchmark,
          .normalization = plan.normalization,
          .weights = options.weights.has_value() ? options.weights->name : "",
          .weights_sha256 = begin.weights_sha256,
          .columns = NamesOf(options.columns),
          .column_uids = UidsOf(options.columns),
          .ephemeral = unnamed && !options.session.empty(),
          .created = absl::Now()};
}

}  // namespace backboned
