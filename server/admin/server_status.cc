#include "server/admin/server_status.h"

#include <prometheus/metric_family.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "backbones/state.h"
#include "server/admin/machine.h"
#include "server/admin/server_figures.h"
#include "server/checkpoints/checkpoint_store.h"
#include "server/device/device_worker.h"
#include "server/device/devices.h"
#include "server/device/gpu_memory.h"
#include "server/device/platform.h"
#include "server/instances/instance.h"
#include "server/memory/memory_allocator.h"
#include "server/memory/memory_room.h"
#include "server/metrics/call_metrics.h"
#include "server/server.h"

namespace backboned::admin {
namespace {

using Json = nlohmann::json;
using prometheus::ClientMetric;
using prometheus::MetricFamily;

double UnixSeconds(absl::Time time) {
  return absl::ToDoubleSeconds(time - absl::UnixEpoch());
}

std::vector<std::string> DescriptionsOf(const Server& server) {
  std::vector<std::string> descriptions;
  for (const DeviceWorker* const worker : server.workers()) {
    descriptions.push_back(DescriptionOf(worker->device()));
  }
  return descriptions;
}

Json ServerPart(const rpc::RpcServer& rpc) {
  const Server& server = rpc.server();
  return {{"version", Version()},
          {"torch", TorchVersion()},
          {"uid", server.uid()},
          {"serving", rpc.is_serving()},
          {"start_time", UnixSeconds(server.started())},
          {"addresses", rpc.addresses()}};
}

Json MachinePart(const std::string& processor, const std::string& state_dir) {
  const MachineFigures now = MachineNow();
  Json part = {{"processor", processor},
               {"cores", now.cores},
               {"load", now.load},
               {"memory_bytes", now.memory_bytes},
               {"memory_available_bytes", now.available_bytes},
               {"memory_usable_bytes", MachineMemoryBytes()},
               {"process_memory_bytes", now.process_memory_bytes}};
  if (state_dir.empty()) return part;
  if (const std::optional<DiskFigures> disk = DiskOf(state_dir)) {
    part["state_disk"] = {{"bytes", disk->bytes},
                          {"available_bytes", disk->available_bytes}};
  }
  return part;
}

Json Limited(int64_t used, int64_t limit) {
  return {{"used", used}, {"limit", limit}};
}

Json LimitsPart(const rpc::RpcServer& rpc) {
  Server& server = rpc.server();
  const Limits& limits = server.limits();
  const TapeStore::Figures tapes = server.tapes().TotalFigures();
  const auto store = server.checkpoints();
  return {
      {"calls", Limited(rpc.gate().places().used(), limits.max_calls)},
      {"streams", Limited(rpc.streams().places().used(), limits.max_streams)},
      {"sessions", Limited(server.sessions().count(), limits.max_sessions)},
      {"instances",
       Limited(server.registry().places().used(), limits.max_instances)},
      {"tapes", Limited(tapes.count, limits.max_tapes)},
      {"tape_bytes", Limited(tapes.bytes, limits.max_tape_bytes)},
      {"memory_bytes",
       Limited(CpuMemory().allocated_bytes(), limits.max_memory_bytes)},
      {"in_flight_bytes",
       Limited(server.in_flight().used(), limits.max_in_flight_bytes)},
      {"checkpoint_bytes", Limited(store.ok() ? (*store)->room().used() : 0,
                                   limits.max_checkpoint_bytes)}};
}

Json MemoryOf(const DeviceWorker& worker) {
  if (worker.device().is_cpu()) {
    return {{"allocated_bytes", CpuMemory().allocated_bytes()},
            {"pooled_bytes", CpuMemory().pooled_bytes()}};
  }
  const GpuMemory memory = GpuMemoryOf(worker.device());
  return {{"allocated_bytes", memory.allocated},
          {"pooled_bytes", memory.pooled},
          {"free_bytes", memory.free}};
}

Json DevicePart(const DeviceWorker& worker, const std::string& description) {
  const DeviceWorker::BatchFigures figures = worker.batch_figures();
  Json batches = Json::object();
  for (size_t reason = 0; reason < figures.batches.size(); ++reason) {
    batches[std::string(kBatchReasons[reason])] = figures.batches[reason];
  }
  return {{"name", worker.device().str()},
          {"description", description},
          {"threads", worker.threads()},
          {"lost", worker.is_lost()},
          {"busy_seconds", absl::ToDoubleSeconds(worker.busy())},
          {"queued", worker.queued()},
          {"backlog_seconds", absl::ToDoubleSeconds(worker.backlog())},
          {"batches", std::move(batches)},
          {"merged_forwards", figures.merged_items},
          {"memory", MemoryOf(worker)}};
}

const MetricFamily* Find(const std::vector<MetricFamily>& families,
                         std::string_view name) {
  const auto found = std::ranges::find(families, name, &MetricFamily::name);
  return found == families.end() ? nullptr : &*found;
}

// Numbers of calls.
using CallsByCode = std::map<std::string, int64_t>;

std::string LabelOf(const ClientMetric& metric, std::string_view name) {
  const auto found =
      std::ranges::find(metric.label, name, &ClientMetric::Label::name);
  return found == metric.label.end() ? "" : found->value;
}

// Returns the calls by a label of the family and by code; with an empty label,
// all calls.
std::map<std::string, CallsByCode> CallsBy(
    std::string_view label, const std::vector<MetricFamily>& families,
    std::string_view name) {
  std::map<std::string, CallsByCode> calls;
  const MetricFamily* const family = Find(families, name);
  if (family == nullptr) return calls;
  for (const ClientMetric& metric : family->metric) {
    calls[LabelOf(metric, label)][LabelOf(metric, "code")] +=
        static_cast<int64_t>(metric.counter.value);
  }
  return calls;
}

// Returns the sum of the histograms of all methods: counts by bucket, the last
// of all above the last bound.
Json HistogramOf(const std::vector<MetricFamily>& families,
                 std::string_view name) {
  std::vector<double> bounds;
  std::vector<int64_t> counts;
  double sum = 0;
  if (const MetricFamily* const family = Find(families, name)) {
    for (const ClientMetric& metric : family->metric) {
      const auto& buckets = metric.histogram.bucket;
      counts.resize(buckets.size());
      bounds.clear();
      uint64_t below = 0;
      for (size_t i = 0; i < buckets.size(); ++i) {
        counts[i] += static_cast<int64_t>(buckets[i].cumulative_count - below);
        below = buckets[i].cumulative_count;
        if (std::isfinite(buckets[i].upper_bound)) {
          bounds.push_back(buckets[i].upper_bound);
        }
      }
      sum += metric.histogram.sample_sum;
    }
  }
  return {{"upper_bounds", bounds}, {"counts", counts}, {"sum_seconds", sum}};
}

Json InstancePart(Instance& instance, int64_t memory_bytes, absl::Time now) {
  const Instance::Identity& identity = instance.identity();
  const Settings settings = instance.settings();
  const StatePtr state = instance.state();
  Instance::Counters& counters = instance.counters();
  return {{"owner", identity.owner},
          {"name", identity.name},
          {"uid", instance.uid()},
          {"benchmark", identity.benchmark},
          {"architecture", std::string(instance.architecture().name())},
          {"device", instance.worker().device().str()},
          {"create_time", UnixSeconds(identity.created)},
          {"memory_bytes", memory_bytes},
          {"shared", settings.shared},
          {"read_only", settings.read_only},
          {"ephemeral", identity.ephemeral},
          {"idle_seconds", absl::ToDoubleSeconds(now - instance.last_used())},
          {"asleep", IsMeta(*state)},
          {"params_version", state->params_version},
          {"buffers_version", state->buffers_version},
          {"counters",
           {{"forwards", counters.forwards.load()},
            {"backwards", counters.backwards.load()},
            {"writes", counters.writes.load()},
            {"steps", counters.steps.load()},
            {"demoted_tapes", counters.demoted_tapes.load()},
            {"replayed_forwards", counters.replayed_forwards.load()}}}};
}

struct Listed {
  std::shared_ptr<Instance> instance;
  int64_t bytes;
};

std::vector<Listed> InstancesOf(Server& server) {
  std::vector<Listed> all;
  for (std::shared_ptr<Instance>& each : server.registry().List()) {
    const StatePtr state = each->state();
    const int64_t bytes = IsMeta(*state) ? 0 : StateBytes(*state);
    all.push_back({std::move(each), bytes});
  }
  return all;
}

// The figures of a principal that are not asked for by name.
struct Principal {
  PayerAccounts::LiveBytes live;
  int64_t instance_bytes = 0;
  std::map<std::string, double> device_seconds;  // By device.
  CallsByCode calls;

  // Returns the number of calls that failed.
  int64_t failed() const {
    int64_t count = 0;
    for (const auto& [code, ended] : calls) count += code == "OK" ? 0 : ended;
    return count;
  }

  // Those with more come first.
  auto rank() const {
    double seconds = 0;
    for (const auto& [device, part] : device_seconds) seconds += part;
    return std::tuple(live.on_host + live.on_gpus, seconds, failed());
  }
};

Json PrincipalPart(const rpc::RpcServer& rpc, const std::string& name,
                   const Principal& principal) {
  Server& server = rpc.server();
  const Payer payer = {name};
  constexpr LimitScope kScope = LimitScope::kPrincipal;
  const TapeStore::Figures tapes = server.tapes().PayerFigures(kScope, payer);
  return {{"name", name},
          {"device_seconds", principal.device_seconds},
          {"calls_by_code", principal.calls},
          {"calls_in_progress", rpc.gate().places().used(kScope, payer)},
          {"memory_bytes", principal.live.on_host},
          {"device_memory_bytes", principal.live.on_gpus},
          {"tapes", tapes.count},
          {"tape_bytes", tapes.bytes},
          {"instances", server.registry().places().used(kScope, payer)},
          {"instance_bytes", principal.instance_bytes}};
}

// Adds those who have most memory now: they are here. Others may have worked
// more, and have gone.
void AddPrincipals(const rpc::RpcServer& rpc, const std::vector<Listed>& listed,
                   const std::vector<MetricFamily>& families, Json& to) {
  std::map<std::string, Principal> by_name;
  const auto live = rpc.server().accounts().LiveByPrincipal();
  for (const auto& [name, bytes] : live) by_name[name].live = bytes;
  for (const Listed& each : listed) {
    by_name[each.instance->identity().owner].instance_bytes += each.bytes;
  }
  for (const DeviceWorker* const worker : rpc.server().workers()) {
    for (const auto& [name, paid] : worker->paid()) {
      by_name[name.empty() ? kOtherPrincipals : name]
          .device_seconds[worker->device().str()] = absl::ToDoubleSeconds(paid);
    }
  }
  for (auto& [name, calls] :
       CallsBy("principal", families, "backboned_principal_calls_total")) {
    by_name[name].calls = std::move(calls);
  }
  const auto others = by_name.extract(kOtherPrincipals);
  std::vector<std::pair<std::string, Principal>> all(by_name.begin(),
                                                     by_name.end());
  std::ranges::stable_sort(all, std::ranges::greater(),
                           [](const auto& each) { return each.second.rank(); });
  const size_t count = std::min(all.size(), kMostListedPrincipals);
  Json& principals = to["principals"] = Json::array();
  for (size_t i = 0; i < count; ++i) {
    principals.push_back(PrincipalPart(rpc, all[i].first, all[i].second));
  }
  if (others) {
    principals.push_back(PrincipalPart(rpc, others.key(), others.mapped()));
  }
  to["principals_left_out"] = all.size() - count;
}

// Adds those that take most memory.
void AddInstances(std::vector<Listed> listed, absl::Time now, Json& to) {
  std::ranges::stable_sort(listed, std::ranges::greater(), &Listed::bytes);
  const size_t count = std::min(listed.size(), kMostListedInstances);
  Json& instances = to["instances"] = Json::array();
  for (size_t i = 0; i < count; ++i) {
    instances.push_back(
        InstancePart(*listed[i].instance, listed[i].bytes, now));
  }
  to["instances_left_out"] = listed.size() - count;
}

// Adds the usage that was read last, if it was.
void AddUsage(const std::shared_ptr<const RecentUsage::Answer>& answer,
              Json& to) {
  if (answer == nullptr) return;
  Json& usage = to["usage"] = {{"time", UnixSeconds(answer->time)}};
  for (size_t span = 0; span < answer->spans.size(); ++span) {
    Json& uses = usage[std::string(RecentUsage::kSpans[span].name)] =
        Json::array();
    for (const auto& [principal, amounts] : answer->spans[span]) {
      uses.push_back(
          {{"principal", principal},
           {"device_seconds", absl::ToDoubleSeconds(amounts.device_time)},
           {"calls", amounts.calls}});
    }
  }
}

}  // namespace

ServerStatus::ServerStatus(const rpc::RpcServer& server, std::string state_dir)
    : server_(server),
      state_dir_(std::move(state_dir)),
      processor_(ProcessorName()),
      descriptions_(DescriptionsOf(server.server())),
      usage_(server.server()) {}

std::string ServerStatus::Json() {
  Server& server = server_.server();
  const std::vector<MetricFamily> families = server_.metrics().Collect();
  nlohmann::json status = {
      {"format", 1},
      {"time", UnixSeconds(absl::Now())},
      {"monotonic_seconds", UnixSeconds(server.clock().Now())},
      {"server", ServerPart(server_)},
      {"machine", MachinePart(processor_, state_dir_)},
      {"limits", LimitsPart(server_)},
      {"calls_by_code", CallsBy("", families, "backboned_calls_total")[""]},
      {"latency",
       {{"queue", HistogramOf(families, "backboned_call_queue_seconds")},
        {"compute", HistogramOf(families, "backboned_call_compute_seconds")},
        {"total", HistogramOf(families, "backboned_call_duration_seconds")}}}};
  nlohmann::json& devices = status["devices"] = nlohmann::json::array();
  for (size_t i = 0; i < server.workers().size(); ++i) {
    devices.push_back(DevicePart(*server.workers()[i], descriptions_[i]));
  }
  std::vector<Listed> listed = InstancesOf(server);
  AddPrincipals(server_, listed, families, status);
  AddInstances(std::move(listed), server.clock().Now(), status);
  AddUsage(usage_.Last(), status);
  // Texts of clients may be no UTF-8, which JSON must be.
  return status.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/false,
                     nlohmann::json::error_handler_t::replace);
}

}  // namespace backboned::admin
