#include "server/server.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/errors.h"
#include "base/random_id.h"
#include "server/device/devices.h"
#include "server/device/gpu_memory.h"
#include "server/instances/first_state.h"
#include "server/limits/catching.h"
#include "server/memory/memory_allocator.h"

namespace backboned {
namespace {

constexpr absl::Duration kSweepInterval = absl::Seconds(1);

// The usual time that a call holds its upload's bytes.
constexpr absl::Duration kUploadRetryDelay = absl::Milliseconds(100);

// Completes how a device's time is shared by the limits of its queue, and by
// weights.
SchedulerOptions WithLimits(SchedulerOptions scheduling, const Limits& limits,
                            const NumberByPrincipal& shares) {
  scheduling.max_queued = limits.max_queued;
  scheduling.max_queued_by_flow = limits.max_queued_by_run;
  scheduling.max_queued_of = [quotas = limits.quotas, all = limits.max_queued](
                                 const std::string& principal) {
    return quotas.Part(LimitScope::kPrincipal, {principal}, all);
  };
  scheduling.weight_of = [shares](const std::string& principal) {
    return shares.Find(principal).value_or(1);
  };
  return scheduling;
}

// Completes the limits by what the devices have.
Limits WithDevices(Limits limits, const std::vector<c10::Device>& devices) {
  if (limits.max_device_memory_bytes > 0) return limits;
  std::set<c10::DeviceIndex> counted;
  for (const c10::Device& device : devices) {
    if (device.is_cpu() || !counted.insert(device.index()).second) continue;
    limits.max_device_memory_bytes += GpuMemoryOf(device).free / 10 * 9;
  }
  return limits;
}

}  // namespace

Server::Server(const std::vector<c10::Device>& devices, int threads,
               const ServerOptions& options, WeightsFolder weights,
               const Clock& clock, std::unique_ptr<CheckpointStore> checkpoints,
               std::unique_ptr<UsageLog> usage)
    : limits_(WithDevices(options.limits, devices)),
      weights_(std::move(weights)),
      checkpoints_(std::move(checkpoints)),
      usage_(usage == nullptr ? *UsageLog::Open({}) : std::move(usage)),
      uid_(RandomId()),
      started_(absl::Now()),
      clock_(clock),
      directory_(limits_.quotas.principals, options.shares),
      registry_(limits_.max_instances, limits_.quotas),
      tapes_({.max_count = limits_.max_tapes,
              .max_bytes = limits_.max_tape_bytes,
              .ttl = limits_.tape_ttl,
              .quotas = limits_.quotas}),
      sessions_(
          limits_.session_ttl, limits_.max_sessions, limits_.quotas,
          [this](const Payer& payer) {
            return tapes_.PayerFigures(LimitScope::kSession, payer).count > 0;
          }),
      answers_(options.answers),
      in_flight_({.name = "max-in-flight-bytes",
                  .limit = limits_.max_in_flight_bytes,
                  .quotas = limits_.quotas,
                  .retry_delay = kUploadRetryDelay}),
      accounts_(limits_.max_memory_bytes > 0 ? limits_.max_memory_bytes
                                             : kUnlimitedBytes,
                limits_.max_device_memory_bytes, limits_.quotas),
      cache_room_(std::make_shared<Budget>(
          Budget::Options{.name = "max-cache-bytes",
                          .limit = limits_.max_cache_bytes,
                          .quotas = limits_.quotas})) {
  if (checkpoints_ != nullptr) waker_.emplace(*checkpoints_);
  const SchedulerOptions scheduling =
      WithLimits(options.scheduling, limits_, options.shares);
  for (const c10::Device& device : devices) {
    std::unique_ptr<DeviceWorker>& worker = workers_[device.str()];
    if (worker != nullptr) continue;
    worker =
        std::make_unique<DeviceWorker>(device, threads, scheduling, clock_);
    worker->OnOutOfMemory([this] { return tapes_.DemoteAllOnGpus() > 0; });
    if (options.graph_bytes > 0 && !device.is_cpu()) {
      worker->RecordGraphs(options.graph_bytes);
    }
    worker_order_.push_back(worker.get());
  }
  for (std::unique_ptr<DeviceWorker>* worker : {&chores_, &usage_reader_}) {
    *worker = std::make_unique<DeviceWorker>(scheduling, clock_);
  }
  // Later threads take the number that LibTorch was given last.
  at::set_num_threads(worker_order_.front()->threads());
  usage_->Start([this] { return BusyTimes(); });
  sweeper_ = std::thread([this] { SweepUntilEnd(); });
}

Server::~Server() {
  usage_->Stop();
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    ended_.SignalAll();
  }
  sweeper_.join();
}

UsageLog::BusyTimes Server::BusyTimes() const {
  UsageLog::BusyTimes busy;
  for (const DeviceWorker* const worker : worker_order_) {
    busy[worker->device().str()] = worker->busy();
  }
  return busy;
}

Task<absl::StatusOr<Created>> Server::CreateInstance(
    const CreateOptions& options) {
  absl::StatusOr<Blueprint> plan = MakeBlueprint(options);
  if (!plan.ok()) co_return plan.status();
  absl::StatusOr<DeviceWorker*> worker =
      plan->source == nullptr ? WorkerFor(options) : &plan->source->worker();
  if (!worker.ok()) co_return worker.status();
  if (plan->source == nullptr) {  // A clone's condition comes first.
    if (auto taken = registry_.Get(options.owner, options.name)) {
      co_return Existing(std::move(taken), options, *plan, **worker);
    }
  }
  absl::Status status = CheckBeginning(options, *plan, **worker);
  if (status.ok()) {  // Before any allocation.
    status = registry_.CheckRoom({options.owner, options.session});
  }
  if (!status.ok()) co_return status;
  absl::StatusOr<FirstState> first =
      co_await MakeFirstState(options, *plan, weights_, *chores_, **worker);
  if (!first.ok()) co_return first.status();
  if (plan->identity.uid.empty()) plan->identity.created = absl::Now();
  if (!first->weights_sha256.empty()) {
    plan->identity.weights_sha256 = std::move(first->weights_sha256);
  }
  auto instance = std::make_shared<Instance>(
      plan->identity, plan->architecture, **worker,
      std::make_shared<const State>(std::move(first->state)), plan->settings,
      cache_room_);
  instance->Touch(clock_.Now());
  status = Register(instance, options.check_wanted);
  if (absl::IsAlreadyExists(status)) {  // Another caller was faster.
    if (auto taken = registry_.Get(options.owner, options.name)) {
      co_return Existing(std::move(taken), options, *plan, **worker);
    }
  }
  if (!status.ok()) co_return status;
  co_return Created{.instance = std::move(instance),
                    .rng_state = std::move(first->rng_state),
                    .missing_keys = std::move(first->loaded.missing),
                    .unexpected_keys = std::move(first->loaded.unexpected)};
}

Task<absl::Status> Server::Wake(std::shared_ptr<Instance> instance,
                                DeviceWorker::Request caller) {
  instance->Touch(clock_.Now());
  if (!waker_ || !instance->is_asleep()) co_return absl::OkStatus();
  const Instance::Identity& identity = instance->identity();
  caller.account = accounts_.Of({identity.owner, identity.session});
  absl::Status awake = co_await waker_->Wake(instance, std::move(caller));
  const bool unreadable = ReasonOf(awake) == Reason::kCheckpointUnreadable;
  if ((awake.ok() || unreadable) && instance->NoteReadable(!unreadable)) {
    registry_.TellChange(*instance);
  }
  co_return awake;
}

absl::StatusOr<CheckpointStore*> Server::checkpoints() const {
  if (checkpoints_ != nullptr) return checkpoints_.get();
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kNoStateFolder,
               "this server keeps no checkpoints: it was started without "
               "--state-dir");
}

absl::Status Server::Register(
    const std::shared_ptr<Instance>& instance,
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

absl::Status Server::DeleteInstance(Instance& instance) {
  if (!registry_.Remove(instance)) {
    return Error(absl::StatusCode::kNotFound, Reason::kInstanceNotFound,
                 absl::StrCat("no instance ", Quote(instance.identity().name)));
  }
  instance.MarkDeleted();  // Before its tapes go, so that no new one stays.
  sessions_.Disown(instance.FullName());
  tapes_.DropInstance(instance.uid());
  return absl::OkStatus();
}

void Server::Sweep(absl::Time now) {
  tapes_.DropExpired(now);
  answers_.DropExpired(now);
  for (const Sessions::Expired& session : sessions_.TakeExpired(now)) {
    // Later tapes belong to a session that came back meanwhile.
    tapes_.DropSession(session.id, session.principal, now);
    for (const std::string& name : session.instances) {
      absl::StatusOr<std::shared_ptr<Instance>> instance =
          registry_.Find(name, {session.principal});
      if (instance.ok()) DeleteInstance(**instance).IgnoreError();
    }
  }
  {
    absl::MutexLock lock(&mutex_);
    if (now - trimmed_ < kMemoryRest) return;
    trimmed_ = now;
  }
  CpuMemory().TrimUnused();
  ReleaseRestingGpus();
}

// Gives the GPUs' unused memory back, if they have done nothing since the last
// call.
void Server::ReleaseRestingGpus() {
  absl::Duration busy;
  const DeviceWorker* gpu = nullptr;
  for (DeviceWorker* const worker : worker_order_) {
    if (worker->device().is_cpu()) continue;
    if (!worker->is_idle()) return;
    gpu = worker;
    busy += worker->busy() + worker->copies().busy();
  }
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(gpus_busy_, busy) != busy) return;
  }
  if (gpu != nullptr) ReleasePooledGpuMemory(gpu->device());
}

void Server::SweepUntilEnd() {
  absl::MutexLock lock(&mutex_);
  while (!ending_) {
    ended_.WaitWithTimeout(&mutex_, kSweepInterval);
    mutex_.Unlock();
    RunCatching([&] {  // Logs a failure; the next sweep goes on.
      Sweep(clock_.Now());
      return absl::OkStatus();
    })
        .IgnoreError();
    mutex_.Lock();
  }
}

// Returns the worker of a new network, which is on its columns' device.
absl::StatusOr<DeviceWorker*> Server::WorkerFor(
    const CreateOptions& options) const {
  if (options.device == kLeastUsedDevice && !options.columns.empty()) {
    return &options.columns.front()->worker();
  }
  return FindWorker(options.device);
}

DeviceWorker* Server::LeastUsedWorker() const {
  return *std::ranges::max_element(
      worker_order_, {}, [](const DeviceWorker* worker) {
        if (worker->device().is_cpu() || worker->is_lost()) return int64_t{-1};
        const GpuMemory memory = GpuMemoryOf(worker->device());
        return memory.free + memory.pooled;
      });
}

absl::StatusOr<DeviceWorker*> Server::FindWorker(
    std::string_view device) const {
  if (device.empty()) return worker_order_.front();
  if (device == kLeastUsedDevice) return LeastUsedWorker();
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
