#include "server/instances/beginning.h"

#include <cmath>
#include <cstddef>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/architectures.h"
#include "backbones/benchmarks.h"
#include "backbones/dtypes.h"
#include "base/errors.h"
#include "base/names.h"
#include "base/random_id.h"
#include "server/device/devices.h"

namespace backboned {
namespace {

// More channels than images have: a list's descriptions contain them all.
constexpr size_t kMaxChannels = 1024;

constexpr size_t kMaxNameStem = 55;  // A random suffix fits behind it.

absl::Status CheckNormalization(const Blueprint& plan) {
  const Normalization& normalization = plan.identity.normalization;
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
std::string MadeOtherwise(const Instance& instance, const Blueprint& plan) {
  const Architecture& present = instance.architecture();
  if (present.name() != plan.architecture->name() ||
      present.arguments() != plan.architecture->arguments()) {
    return absl::StrCat("is a ", present.name(), " with other arguments");
  }
  if (instance.identity().column_uids != plan.identity.column_uids) {
    return "has other earlier columns";
  }
  if (instance.identity().normalization != plan.identity.normalization) {
    return "has another normalization";
  }
  if (instance.identity().precision != plan.identity.precision) {
    return "has another precision";
  }
  return "";
}

std::string BeganOtherwise(const Instance& instance,
                           const CreateOptions& options,
                           const DeviceWorker& worker) {
  if (&instance.worker() != &worker && options.device != kLeastUsedDevice) {
    return absl::StrCat("is on ", instance.worker().device().str(), ", not ",
                        worker.device().str());
  }
  const at::ScalarType dtype = DtypeOf(*instance.state());
  if (dtype != options.dtype) {
    return absl::StrCat("has dtype ", DtypeName(dtype), ", not ",
                        DtypeName(options.dtype));
  }
  const std::string& weights = instance.identity().weights;
  const auto* loaded = std::get_if<Loaded>(&options.beginning);
  const bool other_weights =
      loaded != nullptr && loaded->weights.name != weights;
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
  if (present.shared != wanted.shared) {
    return present.shared ? "is shared" : "is not shared";
  }
  if (wanted.feature_cache_bytes != 0 &&
      present.feature_cache_bytes != wanted.feature_cache_bytes) {
    return absl::StrCat("has a feature cache of ", present.feature_cache_bytes,
                        " bytes, not ", wanted.feature_cache_bytes);
  }
  return "";
}

// Plans a network that is drawn, loaded or restored.
absl::StatusOr<Blueprint> PlanNetwork(const CreateOptions& options,
                                      size_t column_count) {
  Blueprint plan = {.settings = options.settings.value_or(Settings())};
  Instance::Identity& identity = plan.identity;
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
    identity.benchmark = (*benchmark)->name;
    identity.normalization = {(*benchmark)->mean, (*benchmark)->std};
    architecture = (*benchmark)->architecture;
    for (const auto& argument : (*benchmark)->arguments)
      arguments.insert(argument);
  }
  absl::StatusOr<std::shared_ptr<const Architecture>> built =
      BuildArchitecture(architecture, arguments, column_count);
  if (!built.ok()) return built.status();
  plan.architecture = *std::move(built);
  identity.name = identity.benchmark.empty() ? plan.architecture->name()
                                             : identity.benchmark;
  identity.precision = options.precision;
  if (options.normalization.has_value())
    identity.normalization = *options.normalization;
  for (const auto& column : options.columns) {
    identity.columns.push_back(column->FullName());
    identity.column_uids.push_back(column->uid());
  }
  return plan;
}

// Plans an instance that shares the tensors of `source`.
Blueprint PlanShared(const CreateOptions& options,
                     const std::shared_ptr<Instance>& source) {
  Blueprint plan = {.identity = source->identity(),
                    .architecture = source->shared_architecture(),
                    .settings = source->settings(),
                    .source = source};
  plan.identity.uid.clear();
  plan.identity.rollback.reset();
  plan.settings.read_only = false;
  plan.settings.feature_cache_bytes = 0;
  plan.settings.shared = false;
  if (options.settings.has_value()) plan.settings = *options.settings;
  return plan;
}

// Plans by each way to begin. The identity's name is a stem.
struct Planner {
  const CreateOptions& options;

  absl::StatusOr<Blueprint> operator()(const Drawn&) const {
    return PlanNetwork(options, options.columns.size());
  }

  absl::StatusOr<Blueprint> operator()(const Loaded& loaded) const {
    absl::StatusOr<Blueprint> plan =
        PlanNetwork(options, options.columns.size());
    if (plan.ok()) plan->identity.weights = loaded.weights.name;
    return plan;
  }

  absl::StatusOr<Blueprint> operator()(const Restored& restored) const {
    absl::StatusOr<Blueprint> plan =
        PlanNetwork(options, restored.columns.size());
    if (!plan.ok()) return plan;
    plan->identity.weights = restored.weights;
    plan->identity.weights_sha256 = restored.weights_sha256;
    plan->identity.columns = restored.columns;
    plan->identity.column_uids = restored.column_uids;
    if (restored.former.has_value()) {
      plan->identity.uid = restored.former->uid;
      plan->identity.created = restored.former->created;
      plan->identity.rollback = restored.former->rollback;
    }
    return plan;
  }

  absl::StatusOr<Blueprint> operator()(const Cloned& cloned) const {
    return PlanShared(options, cloned.source);
  }

  absl::StatusOr<Blueprint> operator()(const Forked& forked) const {
    Blueprint plan = PlanShared(options, forked.source);
    Arguments arguments = plan.architecture->arguments();
    arguments["num_classes"] = forked.num_classes;
    absl::StatusOr<std::shared_ptr<const Architecture>> built =
        BuildArchitecture(plan.architecture->name(), arguments,
                          plan.identity.columns.size());
    if (!built.ok()) return built.status();
    plan.architecture = *std::move(built);
    plan.identity.benchmark.clear();
    return plan;
  }
};

}  // namespace

absl::StatusOr<Blueprint> MakeBlueprint(const CreateOptions& options) {
  absl::StatusOr<Blueprint> plan =
      std::visit(Planner{options}, options.beginning);
  if (!plan.ok()) return plan;
  absl::Status valid = CheckNormalization(*plan);
  if (valid.ok()) {
    valid = TrainedUnder(plan->settings, plan->architecture->layout()).status();
  }
  const bool unnamed = options.name.empty();
  if (valid.ok() && !unnamed) valid = CheckName(options.name);
  if (!valid.ok()) return valid;
  Instance::Identity& identity = plan->identity;
  identity.name = unnamed ? absl::StrCat(identity.name.substr(0, kMaxNameStem),
                                         "-", RandomId().substr(0, 8))
                          : options.name;
  identity.owner = options.owner;
  identity.session = options.session;
  identity.ephemeral = unnamed && !options.session.empty();
  return plan;
}

absl::Status CheckBeginning(const CreateOptions& options, const Blueprint& plan,
                            const DeviceWorker& worker) {
  if (plan.source != nullptr) return absl::OkStatus();
  const std::string& name = plan.architecture->name();
  if (std::holds_alternative<Restored>(options.beginning)) {
    return absl::OkStatus();
  }
  const bool loads = std::holds_alternative<Loaded>(options.beginning);
  if (options.precision == Precision::kBfloat16 &&
      options.dtype != at::kFloat) {
    return InvalidOption(
        absl::StrCat("precision bfloat16 needs dtype float32, not ",
                     DtypeName(options.dtype)));
  }
  if (loads && options.random_init) {
    return InvalidOption("give either weights or random_init, not both");
  }
  if (!loads && !options.random_init && (*FindArchitecture(name))->pretrained) {
    return Error(absl::StatusCode::kFailedPrecondition,
                 Reason::kWeightsRequired,
                 absl::StrCat("Mammoth uses ", name,
                              " pretrained; give weights, or set random_init"));
  }
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
  const bool is_network = std::holds_alternative<Drawn>(options.beginning) ||
                          std::holds_alternative<Loaded>(options.beginning);
  std::string why;
  if (!options.exist_ok) {
    why = absl::StrCat("instance ", Quote(options.name),
                       " exists already; choose another name",
                       is_network ? ", or set exist_ok" : "");
  } else {
    std::string difference = MadeOtherwise(*instance, plan);
    if (difference.empty()) {
      difference = BeganOtherwise(*instance, options, worker);
    }
    if (difference.empty()) {
      difference = SetOtherwise(instance->settings(), plan.settings);
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

}  // namespace backboned
