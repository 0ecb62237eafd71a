#include "server/rpc/instances/instance_service.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/errors.h"
#include "proto/wire/message.h"
#include "server/device/devices.h"
#include "server/device/gpu_memory.h"
#include "server/device/platform.h"
#include "server/instances/shared_memory.h"
#include "server/memory/memory_allocator.h"
#include "server/memory/memory_room.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/convert/tensor_convert.h"
#include "server/rpc/convert/timings.h"
#include "server/rpc/instances/page.h"
#include "server/rpc/transport/call_log.h"

namespace backboned::rpc {
namespace {

v1::Rights ProtoOf(Rights rights) {
  switch (rights) {
    case Rights::kInfer:
      return v1::RIGHTS_INFER;
    case Rights::kTrain:
      return v1::RIGHTS_TRAIN;
    default:
      return v1::RIGHTS_ADMIN;
  }
}

constexpr int64_t kMaxMessageBytes = int64_t{4} << 20;  // gRPC's default.

// The most unexpected keys in an answer; each is of bounded length.
constexpr int kMaxUnexpectedKeys = 1000;

absl::StatusOr<CreateOptions> OptionsOf(
    const Call& call, const v1::CreateInstanceRequest& request) {
  CreateOptions options = {
      .name = request.name(),
      .owner = call.principal(),
      .session = call.session(),
      .benchmark = request.benchmark(),
      .architecture = request.architecture(),
      .arguments = FromProto(request.arguments()),
      .exist_ok = request.exist_ok(),
      .device = request.device(),
      .random_init = request.random_init(),
      .settings = FromProto(request.settings()),
      .check_wanted = [&call] { return call.CheckWanted(); },
      .caller = call.WorkerRequest(/*lane=*/0)};
  Drawn drawn = {.rng_state = request.rng_state()};
  if (request.has_seed()) drawn.seed = request.seed();
  if (request.has_normalization()) {
    options.normalization = FromProto(request.normalization());
  }
  if (request.has_weights()) {
    absl::StatusOr<WeightsOptions> weights = FromProto(request.weights());
    if (!weights.ok()) return weights.status();
    options.beginning =
        Loaded{.weights = *std::move(weights), .rest = std::move(drawn)};
  } else {
    options.beginning = std::move(drawn);
  }
  absl::StatusOr<std::optional<c10::ScalarType>> dtype =
      OptionalFloat(request.dtype(), "dtype");
  if (!dtype.ok()) return dtype.status();
  options.dtype = dtype->value_or(at::kFloat);
  const absl::StatusOr<Precision> precision = FromProto(request.precision());
  if (!precision.ok()) return precision.status();
  options.precision = *precision;
  return options;
}

// Sets the fields that have the names of the table's rows.
v1::Limits LimitsFor(const Payer& payer, const Limits& limits) {
  v1::Limits result;
  const google::protobuf::Reflection& reflection = *result.GetReflection();
  for (const LimitRow& row : LimitTable()) {
    const google::protobuf::FieldDescriptor* field =
        result.GetDescriptor()->FindFieldByName(
            absl::StrReplaceAll(row.name, {{"-", "_"}}));
    if (field == nullptr) continue;  // A client need not know it.
    if (row.kind == LimitRow::Kind::kTime) {
      reflection.MutableMessage(&result, field)
          ->CopyFrom(
              ToProto(limits.*std::get<absl::Duration Limits::*>(row.value)));
    } else {
      reflection.SetInt64(&result, field,
                          limits.*std::get<int64_t Limits::*>(row.value));
    }
  }
  result.set_max_message_bytes(kMaxMessageBytes);
  result.set_max_chunk_bytes(wire::kMaxChunkBytes);
  result.set_session_quota(limits.quotas.Fraction(LimitScope::kSession, payer));
  result.set_principal_quota(
      limits.quotas.Fraction(LimitScope::kPrincipal, payer));
  return result;
}

v1::CreateInstanceResponse ResponseOf(const Created& created,
                                      v1::Instance description) {
  v1::CreateInstanceResponse response;
  *response.mutable_instance() = std::move(description);
  response.set_existed(created.existed);
  response.set_rng_state(created.rng_state);
  for (const std::string& key : created.missing_keys) {
    response.add_missing_keys(key);
  }
  for (const std::string& key : created.unexpected_keys) {
    if (response.unexpected_keys_size() == kMaxUnexpectedKeys) break;
    response.add_unexpected_keys(key);
  }
  return response;
}

}  // namespace

InstanceService::InstanceService(Surroundings& surroundings)
    : DecoratedService("backboned.v1.InstanceService", surroundings) {
  AddUnary("GetServer", &InstanceService::GetServer, Access::kAny);
  AddUnary("ListArchitectures", &InstanceService::ListArchitectures,
           Access::kAny);
  AddUnary("ListBenchmarks", &InstanceService::ListBenchmarks, Access::kAny);
  AddChange("CreateInstance", &InstanceService::CreateInstance,
            Access::kCreate);
  AddChange("CloneInstance", &InstanceService::CloneInstance, Access::kCreate);
  AddChange("UpdateInstance", &InstanceService::UpdateInstance,
            Access::kManage);
  AddUnary("GetInstance", &InstanceService::GetInstance, Access::kRead);
  AddUnary("ListInstances", &InstanceService::ListInstances, Access::kAny);
  AddChange("DeleteInstance", &InstanceService::DeleteInstance,
            Access::kManage);
  AddChange("SaveCheckpoint", &InstanceService::SaveCheckpoint,
            Access::kCreate);
  AddChange("LoadCheckpoint", &InstanceService::LoadCheckpoint,
            Access::kCreate);
  AddUnary("ListCheckpoints", &InstanceService::ListCheckpoints, Access::kAny);
  AddChange("DeleteCheckpoint", &InstanceService::DeleteCheckpoint,
            Access::kCreate);
  AddUnary("ListUsage", &InstanceService::ListUsage, Access::kAny);
}

v1::Usage InstanceService::UsageOf(LimitScope scope, const Payer& payer) const {
  v1::Usage usage;
  usage.set_calls(gate().places().used(scope, payer));
  usage.set_instances(server().registry().places().used(scope, payer));
  const TapeStore::Figures tapes = server().tapes().PayerFigures(scope, payer);
  usage.set_tapes(tapes.count);
  usage.set_tape_bytes(tapes.bytes);
  usage.set_in_flight_bytes(server().in_flight().used(scope, payer));
  usage.set_memory_bytes(server().accounts().live_bytes(scope, payer));
  usage.set_device_memory_bytes(
      server().accounts().live_bytes_on_gpus(scope, payer));
  usage.set_cache_bytes(server().cache_room()->used(scope, payer));
  if (const auto checkpoints = server().checkpoints(); checkpoints.ok()) {
    usage.set_checkpoint_bytes((*checkpoints)->room().used(scope, payer));
  }
  return usage;
}

v1::Instance InstanceService::Describe(
    const std::shared_ptr<Instance>& instance) const {
  return Describe(std::span(&instance, 1)).front();
}

v1::Instance InstanceService::DescribeInFull(
    const std::shared_ptr<Instance>& instance) const {
  v1::Instance description = Describe(instance);
  *description.mutable_layout() = LayoutOf(*instance);
  return description;
}

std::vector<v1::Instance> InstanceService::Describe(
    std::span<const std::shared_ptr<Instance>> instances) const {
  // Their states first, then those that may share with them.
  std::vector<StatePtr> states;
  for (const auto& instance : instances) states.push_back(instance->state());
  for (const auto& other : server().registry().List()) {
    if (std::ranges::find(instances, other) == instances.end()) {
      states.push_back(other->state());
    }
  }
  const std::span all(states);
  const std::vector<int64_t> shared =
      SharedBytes(all.first(instances.size()), all.subspan(instances.size()));
  std::vector<v1::Instance> descriptions;
  for (size_t i = 0; i < instances.size(); ++i) {
    v1::Instance& result =
        descriptions.emplace_back(ToProto(*instances[i], *states[i]));
    *result.mutable_idle() =
        ToProto(server().clock().Now() - instances[i]->last_used());
    const TapeStore::Figures tapes =
        server().tapes().InstanceFigures(instances[i]->uid());
    result.set_tape_count(tapes.count);
    result.set_tape_bytes(tapes.bytes);
    result.set_shared_bytes(shared[i]);
    if (tapes.count == 0) continue;
    result.set_tape_state_bytes(TapeStateBytes(
        server().tapes().OfInstance(instances[i]->uid()), states));
  }
  return descriptions;
}

Task<absl::StatusOr<v1::GetServerResponse>> InstanceService::GetServer(
    Call& call, const v1::GetServerRequest&) {
  v1::GetServerResponse response;
  response.set_version(Version());
  response.set_torch_version(TorchVersion());
  for (const DeviceWorker* worker : server().workers()) {
    v1::Device& device = *response.add_devices();
    device.set_name(worker->device().str());
    device.set_threads(worker->threads());
    device.set_default_(worker == server().workers().front());
    device.set_queued(worker->queued());
    *device.mutable_backlog() = ToProto(worker->backlog());
    *device.mutable_batches() = ToProto(worker->batch_figures());
    const DeviceWorker::Place place = worker->PlaceOf(call.flow());
    device.set_ahead(place.ahead);
    *device.mutable_estimated_wait() = ToProto(place.wait);
    *device.mutable_busy() = ToProto(worker->busy());
    device.set_description(DescriptionOf(worker->device()));
    if (worker->device().is_cpu()) {
      device.set_allocated_bytes(CpuMemory().allocated_bytes());
      device.set_pooled_bytes(CpuMemory().pooled_bytes());
    } else {
      const GpuMemory memory = GpuMemoryOf(worker->device());
      device.set_allocated_bytes(memory.allocated);
      device.set_pooled_bytes(memory.pooled);
      device.set_total_bytes(memory.total);
      device.set_free_bytes(memory.free);
      device.set_driver(DriverVersion());
    }
  }
  *response.mutable_limits() = LimitsFor(call.payer(), server().limits());
  for (const auto& [name, value] : Numerics()) {
    (*response.mutable_numerics())[name] = value;
  }
  response.set_server_uid(server().uid());
  response.set_principal(call.principal());
  response.set_rights(ProtoOf(call.caller().rights));
  if (call.caller().rights == Rights::kAdmin) {
    for (const auto& [reason, count] : RefusalCounts()) {
      (*response.mutable_refusals())[reason] = count;
    }
  }
  *response.mutable_session_usage() =
      UsageOf(LimitScope::kSession, call.payer());
  *response.mutable_principal_usage() =
      UsageOf(LimitScope::kPrincipal, call.payer());
  co_return response;
}

Task<absl::StatusOr<v1::ListArchitecturesResponse>>
InstanceService::ListArchitectures(
    Call&, const v1::ListArchitecturesRequest& request) {
  const std::vector<ArchitectureEntry>& all = Architectures();
  absl::StatusOr<Page> page = CutPage(
      all, [](const ArchitectureEntry& entry) { return entry.name; },
      request.page_size(), request.page_token());
  if (!page.ok()) co_return page.status();
  v1::ListArchitecturesResponse response;
  for (size_t i = page->begin; i < page->end; ++i) {
    *response.add_architectures() = ToProto(all[i]);
  }
  response.set_next_page_token(page->next_token);
  co_return response;
}

Task<absl::StatusOr<v1::ListBenchmarksResponse>>
InstanceService::ListBenchmarks(Call&,
                                const v1::ListBenchmarksRequest& request) {
  const std::vector<Benchmark>& all = Benchmarks();
  absl::StatusOr<Page> page = CutPage(
      all, [](const Benchmark& benchmark) { return benchmark.name; },
      request.page_size(), request.page_token());
  if (!page.ok()) co_return page.status();
  v1::ListBenchmarksResponse response;
  for (size_t i = page->begin; i < page->end; ++i) {
    *response.add_benchmarks() = ToProto(all[i]);
  }
  response.set_next_page_token(page->next_token);
  co_return response;
}

Task<absl::StatusOr<v1::CreateInstanceResponse>>
InstanceService::CreateInstance(Call& call,
                                const v1::CreateInstanceRequest& request) {
  absl::StatusOr<CreateOptions> options = OptionsOf(call, request);
  if (!options.ok()) co_return options.status();
  for (const std::string& name : request.columns()) {
    absl::StatusOr<std::shared_ptr<Instance>> column =
        co_await Resolve(call, name, Access::kRead);
    if (!column.ok()) co_return column.status();
    options->columns.push_back(*std::move(column));
  }
  call.record().instance = request.name();
  absl::StatusOr<Created> created = co_await server().CreateInstance(*options);
  if (!created.ok()) co_return created.status();
  call.record().instance = created->instance->identity().name;
  call.set_found(*created->instance);
  co_return ResponseOf(*created, DescribeInFull(created->instance));
}

Task<absl::StatusOr<v1::GetInstanceResponse>> InstanceService::GetInstance(
    Call& call, const v1::GetInstanceRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Find(call, request.instance(), call.access());
  if (!instance.ok()) co_return instance.status();
  if (request.digest()) {
    absl::Status awake =
        co_await server().Wake(*instance, call.WorkerRequest(/*lane=*/0));
    if (!awake.ok()) co_return awake;
  }
  v1::GetInstanceResponse response;
  *response.mutable_instance() = DescribeInFull(*instance);
  if (request.digest()) {
    const StatePtr state = (*instance)->state();
    absl::StatusOr<std::string> digest = co_await (*instance)->Digest(
        server().chores(), call.WorkerRequest(/*lane=*/0), state);
    if (!digest.ok()) co_return digest.status();
    response.mutable_instance()->set_digest(*std::move(digest));
    *response.mutable_instance()->mutable_version() =
        VersionOf(**instance, *state);
  }
  co_return response;
}

Task<absl::StatusOr<v1::ListInstancesResponse>> InstanceService::ListInstances(
    Call& call, const v1::ListInstancesRequest& request) {
  const std::vector<std::shared_ptr<Instance>> all =
      server().registry().ListFor(call.caller());
  const auto key_of = [](const std::shared_ptr<Instance>& instance) {
    // Sorts as owner and name do: the space precedes all of their characters.
    return absl::StrCat(instance->identity().owner, " ",
                        instance->identity().name);
  };
  absl::StatusOr<Page> page =
      CutPage(all, key_of, request.page_size(), request.page_token());
  if (!page.ok()) co_return page.status();
  v1::ListInstancesResponse response;
  const std::span shown =
      std::span(all).subspan(page->begin, page->end - page->begin);
  FillPage(all, key_of, Describe(shown), *page, *response.mutable_instances());
  response.set_next_page_token(page->next_token);
  co_return response;
}

Task<absl::StatusOr<v1::DeleteInstanceResponse>>
InstanceService::DeleteInstance(Call& call,
                                const v1::DeleteInstanceRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Find(call, request.instance(), call.access());
  if (!instance.ok()) co_return instance.status();
  const VersionCondition condition = FromProto(request.if_version());
  const DeviceWorker::Work remove = [&] {
    absl::Status expected =
        (*instance)->CheckVersion(condition, *(*instance)->state());
    return expected.ok() ? server().DeleteInstance(**instance) : expected;
  };
  absl::Status status;
  if (condition.params || condition.buffers) {
    // In the lane, so that no write intervenes.
    const DeviceWorker::Request caller =
        call.WorkerRequest((*instance)->lane());
    const absl::StatusOr<DeviceWorker::Times> times =
        co_await (*instance)->worker().Run(caller, remove);
    status = times.status();
  } else {
    status = remove();
  }
  if (!status.ok()) co_return status;
  const absl::StatusOr<CheckpointStore*> store = server().checkpoints();
  if (store.ok() && !(*instance)->identity().ephemeral) {
    // The instance is gone: this is not left undone for a caller who goes.
    const DeviceWorker::Request work = {.principal = call.principal()};
    absl::Status forgotten =
        co_await (*store)->DeleteLiving(work, (*instance)->uid());
    if (!forgotten.ok()) co_return forgotten;
  }
  co_return v1::DeleteInstanceResponse();
}

}  // namespace backboned::rpc
