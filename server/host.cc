#include "server/host.h"

#include <cmath>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "backbones/benchmarks.h"
#include "backbones/dtypes.h"
#include "backbones/errors.h"
#include "backbones/registry.h"
#include "server/memory_allocator.h"
#include "server/random_id.h"

namespace backboned {
namespace {

constexpr absl::Duration kSweepInterval = absl::Seconds(1);

// About as long as a call holds its upload's bytes.
constexpr absl::Duration kUploadRetryDelay = absl::Milliseconds(100);

// What an instance is made from, all defaults filled in.
struct Blueprint {
  std::string source;     // What the caller named, in canonical spelling.
  std::string benchmark;  // Empty: none.
  std::shared_ptr<const Architecture> architecture;
  bool pretrained = false;  // Mammoth always loads weights into it.
  Normalization normalization;
  std::vector<std::shared_ptr<Instance>> columns;  // Earlier ones.
};

// How an instance begins.
struct Beginning {
  StatePtr state;
  std::string rng_state;  // After the drawing.
  std::string weights_sha256 = {};
  LoadPlan loaded = {};
};

absl::StatusOr<Blueprint> Draw(const CreateOptions& options) {
  Blueprint plan;
  std::string architecture = options.architecture;
  Arguments arguments = options.arguments;
  if (options.benchmark.empty() == options.architecture.empty()) {
    return InvalidOption("name either a benchmark or an architecture");
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

absl::Status CheckNormalization(const Blueprint& plan) {
  const Normalization& normalization = plan.normalization;
  if (normalization.mean.size() != normalization.std.size()) {
    return InvalidOption(absl::StrCat(
        "normalization has ", normalization.mean.size(), " means and ",
        normalization.std.size(), " standard deviations"));
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
    return InvalidOption("give either a seed or rng_state, not both");
  }
  return GeneratorFromState(std::as_bytes(std::span(options.rng_state)));
}

std::vector<std::string> NamesOf(
    const std::vector<std::shared_ptr<Instance>>& instances) {
  std::vector<std::string> names;
  for (const auto& instance : instances) names.push_back(instance->FullName());
  return names;
}

// Returns OK if `column` can be an earlier column of what is planned.
absl::Status CheckColumn(const CreateOptions& options, const Blueprint& plan,
                         const DeviceWorker& worker, const Instance& column) {
  const auto differs = [&](std::string_view has, std::string_view expected) {
    return InvalidOption(absl::StrCat("column '", column.FullName(), "' ",
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
    return differs("holds " + DtypeName(dtype), DtypeName(options.dtype));
  }
  if (&column.worker() != &worker) {
    return differs("is on " + column.worker().device().str(),
                   worker.device().str());
  }
  return absl::OkStatus();
}

// The answer to a taken name.
absl::StatusOr<Created> Existing(std::shared_ptr<Instance> instance,
                                 const CreateOptions& options,
                                 const Blueprint& plan) {
  if (!options.exist_ok) {
    return Error(
        absl::StatusCode::kAlreadyExists, Reason::kInstanceExists,
        absl::StrCat("there is an instance '", options.name, "' already"));
  }
  const Architecture& present = instance->architecture();
  if (present.name() != plan.architecture->name() ||
      present.arguments() != plan.architecture->arguments()) {
    return Error(absl::StatusCode::kAlreadyExists, Reason::kInstanceExists,
                 absl::StrCat("instance '", options.name, "' is a ",
                              present.name(), " of other arguments"));
  }
  if (instance->identity().columns != NamesOf(plan.columns)) {
    return Error(
        absl::StatusCode::kAlreadyExists, Reason::kInstanceExists,
        absl::StrCat("instance '", options.name, "' is behind other columns"));
  }
  const at::ScalarType dtype = DtypeOf(*instance->state());
  if (dtype != options.dtype) {
    return Error(
        absl::StatusCode::kAlreadyExists, Reason::kInstanceExists,
        absl::StrCat("instance '", options.name, "' holds ", DtypeName(dtype),
                     ", not ", DtypeName(options.dtype)));
  }
  const std::string& weights = instance->identity().weights;
  if (options.weights.has_value() && options.weights->name != weights) {
    return Error(absl::StatusCode::kAlreadyExists, Reason::kInstanceExists,
                 absl::StrCat("instance '", options.name, "' began with ",
                              weights.empty() ? "no weights"
                                              : "weights " + Quote(weights)));
  }
  return Created{.instance = std::move(instance), .existed = true};
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
                            " pretrained: name weights, or set random_init"));
}

absl::StatusOr<StatePtr> MoveTo(DeviceWorker& worker, StatePtr state) {
  if (worker.device().is_cpu()) return state;
  absl::StatusOr<DeviceWorker::Times> times =
      worker.Run({.principal = std::string(kServerPrincipal)}, [&] {
        auto moved = std::make_shared<State>(*state);
        for (at::Tensor& tensor : moved->params)
          tensor = tensor.to(worker.device());
        for (at::Tensor& tensor : moved->buffers)
          tensor = tensor.to(worker.device());
        state = std::move(moved);
        return absl::OkStatus();
      });
  if (!times.ok()) return times.status();
  return state;
}

// Draws here, so that a large network stalls nobody; only a copy to another
// device is the worker's. Weights are looked at before anything is drawn.
absl::StatusOr<Beginning> Begin(const CreateOptions& options,
                                const Blueprint& plan,
                                const WeightsFolder& folder,
                                DeviceWorker& worker) {
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
  absl::StatusOr<StatePtr> state =
      InitialState(layout, *generator, at::kCPU, options.dtype);
  Beginning begin = {.rng_state = GeneratorState(*generator)};
  std::vector<Column> columns;
  for (const auto& column : plan.columns) {
    columns.push_back(
        {.layout = &column->architecture().layout(), .state = column->state()});
  }
  state = WithColumns(**state, layout, columns);
  if (weights.has_value()) {
    state = weights->LoadInto(**state);
    if (!state.ok()) return state.status();
    begin.weights_sha256 = weights->TakeSha256();
    begin.loaded = weights->plan();
  }
  state = MoveTo(worker, *std::move(state));
  if (!state.ok()) return state.status();
  begin.state = *std::move(state);
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
          .columns = NamesOf(plan.columns),
          .ephemeral = unnamed && !options.session.empty(),
          .created = absl::Now()};
}

}  // namespace

Host::Host(const std::vector<c10::Device>& devices, int threads,
           const HostLimits& limits, WeightsFolder weights)
    : limits_(limits),
      weights_(std::move(weights)),
      uid_(RandomId()),
      registry_(limits.max_instances, limits.quotas),
      tapes_({.max_count = limits.max_tapes,
              .max_bytes = limits.max_tape_bytes,
              .ttl = limits.tape_ttl,
              .quotas = limits.quotas}),
      sessions_(limits.session_ttl, limits.max_sessions),
      answers_({.max_payload_bytes = limits.max_answer_bytes}),
      in_flight_({.name = "max-in-flight-bytes",
                  .limit = limits.max_in_flight_bytes,
                  .quotas = limits.quotas,
                  .retry_delay = kUploadRetryDelay}),
      accounts_(limits.max_memory_bytes > 0 ? limits.max_memory_bytes
                                            : kUnlimitedBytes,
                limits.quotas),
      cache_room_(std::make_shared<Budget>(
          Budget::Options{.name = "max-cache-bytes",
                          .limit = limits.max_cache_bytes,
                          .quotas = limits.quotas})) {
  for (const c10::Device& device : devices) {
    std::unique_ptr<DeviceWorker>& worker = workers_[device.str()];
    if (worker != nullptr) continue;
    worker = std::make_unique<DeviceWorker>(device, threads, limits.scheduling);
    worker_order_.push_back(worker.get());
  }
  sweeper_ = std::thread([this] { SweepUntilEnd(); });
}

Host::~Host() {
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    ended_.SignalAll();
  }
  sweeper_.join();
}

absl::StatusOr<Created> Host::CreateInstance(const CreateOptions& options) {
  absl::StatusOr<Blueprint> plan = Draw(options);
  if (!plan.ok()) return plan.status();
  absl::StatusOr<std::vector<std::shared_ptr<Instance>>> columns =
      FindColumns(options);
  if (!columns.ok()) return columns.status();
  plan->columns = *std::move(columns);
  absl::Status status = CheckNormalization(*plan);
  if (status.ok()) {
    status =
        TrainedUnder(options.settings, plan->architecture->layout()).status();
  }
  if (status.ok() && !options.name.empty()) status = CheckName(options.name);
  if (!status.ok()) return status;
  if (auto taken = registry_.Get(options.owner, options.name)) {
    return Existing(std::move(taken), options, *plan);
  }
  status = CheckWeights(options, *plan);
  if (status.ok()) {  // Before any allocation.
    status = registry_.CheckRoom({options.owner, options.session});
  }
  if (!status.ok()) return status;
  absl::StatusOr<DeviceWorker*> worker = FindWorker(options.device);
  if (!worker.ok()) return worker.status();
  for (const auto& column : plan->columns) {
    status = CheckColumn(options, *plan, **worker, *column);
    if (!status.ok()) return status;
  }
  absl::StatusOr<Beginning> begin = Begin(options, *plan, weights_, **worker);
  if (!begin.ok()) return begin.status();
  auto instance = std::make_shared<Instance>(
      IdentityOf(options, *plan, *begin), plan->architecture, **worker,
      std::move(begin->state), options.settings, cache_room_);
  status = Register(instance, options.check_wanted);
  if (absl::IsAlreadyExists(status)) {  // Somebody was faster.
    if (auto taken = registry_.Get(options.owner, options.name)) {
      return Existing(std::move(taken), options, *plan);
    }
  }
  if (!status.ok()) return status;
  return Created{.instance = std::move(instance),
                 .rng_state = options.rng_state.empty() ? "" : begin->rng_state,
                 .missing_keys = std::move(begin->loaded.missing),
                 .unexpected_keys = std::move(begin->loaded.unexpected)};
}

absl::StatusOr<std::vector<std::shared_ptr<Instance>>> Host::FindColumns(
    const CreateOptions& options) const {
  std::vector<std::shared_ptr<Instance>> columns;
  for (const std::string& name : options.columns) {
    absl::StatusOr<std::shared_ptr<Instance>> column =
        registry_.Find(name, options.owner);
    if (!column.ok()) return column.status();
    columns.push_back(*std::move(column));
  }
  return columns;
}

absl::Status Host::Register(const std::shared_ptr<Instance>& instance,
                            const std::function<absl::Status()>& check_wanted) {
  absl::Status status = check_wanted ? check_wanted() : absl::OkStatus();
  if (status.ok()) status = instance->OpenCache();
  if (status.ok()) status = registry_.Add(instance);
  if (!status.ok() || !instance->identity().ephemeral) return status;
  status = sessions_.Adopt(instance->identity().session,
                           instance->identity().owner, instance->FullName());
  if (!status.ok()) registry_.Remove(*instance);
  return status;
}

absl::Status Host::DeleteInstance(Instance& instance) {
  if (!registry_.Remove(instance)) {
    return Error(absl::StatusCode::kNotFound, Reason::kInstanceNotFound,
                 absl::StrCat("no instance '", instance.identity().name, "'"));
  }
  instance.MarkDeleted();  // Before its tapes go, so that no new one stays.
  sessions_.Disown(instance.FullName());
  tapes_.DropInstance(instance.uid());
  return absl::OkStatus();
}

void Host::Sweep(absl::Time now) {
  tapes_.DropExpired(now);
  answers_.DropExpired(now);
  for (const Sessions::Expired& session : sessions_.TakeExpired(now)) {
    tapes_.DropSession(session.id, session.principal);
    for (const std::string& name : session.instances) {
      absl::StatusOr<std::shared_ptr<Instance>> instance =
          registry_.Find(name, session.principal);
      if (instance.ok()) DeleteInstance(**instance).IgnoreError();
    }
  }
  {
    absl::MutexLock lock(&mutex_);
    if (now - trimmed_ < kMemoryRest) return;
    trimmed_ = now;
  }
  CpuMemory().TrimUnused();
}

void Host::SweepUntilEnd() {
  absl::MutexLock lock(&mutex_);
  while (!ending_) {
    ended_.WaitWithTimeout(&mutex_, kSweepInterval);
    mutex_.Unlock();
    Sweep(absl::Now());
    mutex_.Lock();
  }
}

absl::StatusOr<DeviceWorker*> Host::FindWorker(std::string_view device) const {
  if (device.empty()) return worker_order_.front();
  auto found = workers_.find(std::string(device));
  if (found == workers_.end())
    found = workers_.find(std::string(device) + ":0");
  if (found != workers_.end()) return found->second.get();
  std::vector<std::string> names;
  for (const auto& [name, worker] : workers_) names.push_back(name);
  return InvalidOption(absl::StrCat("no device ", Quote(device),
                                    "; this server has ",
                                    absl::StrJoin(names, ", ")));
}

}  // namespace backboned
