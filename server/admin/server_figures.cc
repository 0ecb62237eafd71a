#include "server/admin/server_figures.h"

#include <prometheus/client_metric.h>
#include <prometheus/metric_type.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/time.h"
#include "server/checkpoints/checkpoint_store.h"
#include "server/device/device_worker.h"
#include "server/device/devices.h"
#include "server/device/gpu_memory.h"
#include "server/device/platform.h"
#include "server/memory/memory_allocator.h"
#include "server/memory/memory_room.h"
#include "server/metrics/call_metrics.h"
#include "server/rpc/transport/call_log.h"
#include "server/server.h"

namespace backboned::admin {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

// Collects metrics. Those of one name follow each other.
class Collector {
 public:
  void Gauge(const char* name, const char* help, double value,
             Labels labels = {}) {
    Add(MetricType::Gauge, name, help, std::move(labels)).gauge.value = value;
  }
  void Gauge(const char* name, const char* help, int64_t value,
             Labels labels = {}) {
    Gauge(name, help, static_cast<double>(value), std::move(labels));
  }

  void Counter(const char* name, const char* help, double value,
               Labels labels = {}) {
    Add(MetricType::Counter, name, help, std::move(labels)).counter.value =
        value;
  }
  void Counter(const char* name, const char* help, int64_t value,
               Labels labels = {}) {
    Counter(name, help, static_cast<double>(value), std::move(labels));
  }
  void Counter(const char* name, const char* help, absl::Duration value,
               Labels labels = {}) {
    Counter(name, help, absl::ToDoubleSeconds(value), std::move(labels));
  }

  ClientMetric::Histogram& Histogram(const char* name, const char* help,
                                     Labels labels) {
    return Add(MetricType::Histogram, name, help, std::move(labels)).histogram;
  }

  std::vector<MetricFamily> Take() { return std::move(families_); }

 private:
  ClientMetric& Add(MetricType type, const char* name, const char* help,
                    Labels labels) {
    if (families_.empty() || families_.back().name != name) {
      families_.push_back({.name = name, .help = help, .type = type});
    }
    ClientMetric& metric = families_.back().metric.emplace_back();
    metric.label = std::move(labels);
    return metric;
  }

  std::vector<MetricFamily> families_;
};

void CollectServer(const rpc::RpcServer& rpc, Collector& to) {
  Server& server = rpc.server();
  to.Gauge("backboned_build_info", "Versions, as labels; always 1.", 1.0,
           {{"torch", TorchVersion()}, {"version", Version()}});
  to.Gauge("backboned_start_time_seconds",
           "When the server started, in seconds since 1970.",
           absl::ToDoubleSeconds(server.started() - absl::UnixEpoch()));
  to.Gauge("backboned_serving", "1 while calls are served, else 0.",
           rpc.is_serving() ? 1.0 : 0.0);
  for (const auto& [reason, count] : rpc::RefusalCounts()) {
    to.Counter("backboned_refused_calls_total",
               "Calls whose callers may not call, or not do that, by reason.",
               count, {{"reason", reason}});
  }
}

void CollectLimited(const rpc::RpcServer& rpc, Collector& to) {
  Server& server = rpc.server();
  const Limits& limits = server.limits();
  to.Gauge("backboned_calls_in_progress", "Calls that are being served.",
           rpc.gate().places().used());
  to.Gauge("backboned_calls_limit", "The most calls at a time.",
           limits.max_calls);
  to.Gauge("backboned_streams_open", "Streams of calls that are open.",
           rpc.streams().places().used());
  to.Gauge("backboned_streams_limit", "The most streams at a time.",
           limits.max_streams);
  to.Gauge("backboned_sessions", "Client processes that the server knows.",
           server.sessions().count());
  to.Gauge("backboned_sessions_limit", "The most sessions at a time.",
           limits.max_sessions);
  to.Gauge("backboned_instances", "Instances.",
           server.registry().places().used());
  to.Gauge("backboned_instances_limit", "The most instances at a time.",
           limits.max_instances);
  to.Gauge("backboned_in_flight_bytes", "Bytes of uploads under way.",
           server.in_flight().used());
  to.Gauge("backboned_in_flight_limit_bytes",
           "The most bytes of uploads under way.", limits.max_in_flight_bytes);
}

void CollectCheckpoints(const Server& server, Collector& to) {
  const auto store = server.checkpoints();
  to.Gauge("backboned_checkpoints", "Checkpoints that people named.",
           store.ok() ? (*store)->count() : 0);
  to.Gauge("backboned_checkpoint_bytes",
           "Their bytes, as if they shared no files.",
           store.ok() ? (*store)->room().used() : 0);
  to.Gauge("backboned_checkpoint_limit_bytes",
           "The most bytes that they may have; 0: not limited.",
           server.limits().max_checkpoint_bytes);
  to.Counter("backboned_saves_total",
             "Checkpoints that were saved, also by the server for itself.",
             store.ok() ? (*store)->saves() : 0);
  to.Counter("backboned_refused_saves_total",
             "Checkpoints that the disk refused, since it is full or broken.",
             store.ok() ? (*store)->refused_saves() : 0);
  to.Gauge("backboned_state_folder_starts",
           "How often a server has opened the state folder; 0: there is none.",
           store.ok() ? static_cast<double>((*store)->folder().starts()) : 0.0);
}

void CollectTapes(Server& server, const Registry::Totals& totals,
                  Collector& to) {
  const TapeStore::Figures tapes = server.tapes().TotalFigures();
  to.Gauge("backboned_tapes", "Tapes.", tapes.count);
  to.Gauge("backboned_tapes_limit", "The most tapes at a time.",
           server.limits().max_tapes);
  to.Gauge("backboned_tape_bytes", "Bytes that tapes hold.", tapes.bytes);
  to.Gauge("backboned_tape_limit_bytes", "The most bytes that tapes may hold.",
           server.limits().max_tape_bytes);
  to.Counter("backboned_tape_demotions_total",
             "Tapes that gave up their graphs for want of room.",
             totals.demoted_tapes);
  to.Counter("backboned_forward_replays_total",
             "Forwards that ran again for the backward of a demoted tape.",
             totals.replayed_forwards);
}

void CollectCaches(Server& server, const Registry::Totals& totals,
                   Collector& to) {
  to.Gauge("backboned_feature_cache_bytes",
           "Bytes of the answers that feature caches keep.",
           totals.cache_bytes);
  to.Gauge("backboned_feature_cache_limit_bytes",
           "The most bytes that feature caches may take.",
           server.limits().max_cache_bytes);
  to.Counter("backboned_feature_cache_hits_total",
             "Forwards that feature caches answered.", totals.cache_hits);
  to.Counter("backboned_feature_cache_misses_total",
             "Forwards that feature caches could not answer.",
             totals.cache_misses);
  to.Counter("backboned_feature_cache_evictions_total",
             "Answers that feature caches dropped for want of room.",
             totals.cache_evictions);
}

// Memory by principal, of those that have most.
void CollectMemoryOfPrincipals(Server& server, Collector& to) {
  using Live = std::pair<std::string, PayerAccounts::LiveBytes>;
  const auto known = server.accounts().LiveByPrincipal();
  std::vector<Live> live(known.begin(), known.end());
  std::ranges::stable_sort(live, std::ranges::greater(), [](const Live& each) {
    return each.second.on_host + each.second.on_gpus;
  });
  if (live.size() > kMostPrincipals) {
    PayerAccounts::LiveBytes others;
    for (size_t i = kMostPrincipals; i < live.size(); ++i) {
      others.on_host += live[i].second.on_host;
      others.on_gpus += live[i].second.on_gpus;
    }
    live.resize(kMostPrincipals);
    live.emplace_back(kOtherPrincipals, others);
  }
  for (const auto& [principal, bytes] : live) {
    constexpr char kName[] = "backboned_principal_memory_bytes";
    constexpr char kHelp[] =
        "Bytes of tensors that were made for a principal and are still there.";
    to.Gauge(kName, kHelp, bytes.on_host,
             {{"on", "host"}, {"principal", principal}});
    if (bytes.on_gpus == 0) continue;
    to.Gauge(kName, kHelp, bytes.on_gpus,
             {{"on", "gpus"}, {"principal", principal}});
  }
}

void CollectMemory(Server& server, Collector& to) {
  constexpr char kName[] = "backboned_memory_bytes";
  constexpr char kHelp[] =
      "Bytes of a device's memory: allocated by tensors, pooled for the next "
      "ones, free.";
  for (const DeviceWorker* const worker : server.workers()) {
    const std::string device = worker->device().str();
    if (worker->device().is_cpu()) {
      const MemoryRoom& room = CpuMemory();
      to.Gauge(kName, kHelp, room.allocated_bytes(),
               {{"device", device}, {"kind", "allocated"}});
      to.Gauge(kName, kHelp, room.pooled_bytes(),
               {{"device", device}, {"kind", "pooled"}});
      continue;
    }
    const GpuMemory memory = GpuMemoryOf(worker->device());
    to.Gauge(kName, kHelp, memory.allocated,
             {{"device", device}, {"kind", "allocated"}});
    to.Gauge(kName, kHelp, memory.pooled,
             {{"device", device}, {"kind", "pooled"}});
    to.Gauge(kName, kHelp, memory.free, {{"device", device}, {"kind", "free"}});
  }
  to.Gauge("backboned_memory_limit_bytes",
           "The most bytes of the host's memory for tensors; 0: not limited.",
           server.limits().max_memory_bytes);
  CollectMemoryOfPrincipals(server, to);
}

void CollectBatchSizes(const DeviceWorker::BatchFigures& figures,
                       const std::string& device, Collector& to) {
  ClientMetric::Histogram& sizes =
      to.Histogram("backboned_batch_samples",
                   "Samples of the batches of forwards that may be merged.",
                   {{"device", device}});
  sizes.sample_sum = static_cast<double>(figures.samples);
  double bound = 1;
  for (const int64_t count : figures.sizes) {
    sizes.sample_count += static_cast<uint64_t>(count);
    const bool is_last = sizes.bucket.size() + 1 == figures.sizes.size();
    sizes.bucket.push_back(
        {.cumulative_count = sizes.sample_count,
         .upper_bound =
             is_last ? std::numeric_limits<double>::infinity() : bound});
    bound *= 2;
  }
}

// Calls `collect` with each device's worker, for one metric after another.
template <typename Collect>
void ForEachDevice(Server& server, Collect collect) {
  for (const DeviceWorker* const worker : server.workers()) {
    collect(*worker, worker->device().str());
  }
}

void CollectDevices(Server& server, Collector& to) {
  ForEachDevice(server, [&](const DeviceWorker& worker, const auto& device) {
    to.Gauge("backboned_device_lost", "1 if a device has failed for good.",
             worker.is_lost() ? 1.0 : 0.0, {{"device", device}});
  });
  ForEachDevice(server, [&](const DeviceWorker& worker, const auto& device) {
    to.Counter("backboned_device_busy_seconds_total",
               "How long a device has worked.", worker.busy(),
               {{"device", device}});
  });
  ForEachDevice(server, [&](const DeviceWorker& worker, const auto& device) {
    for (const auto& [principal, paid] : worker.paid()) {
      to.Counter(
          "backboned_principal_device_seconds_total",
          "How long a device has worked for a principal.", paid,
          {{"device", device},
           {"principal", principal.empty() ? kOtherPrincipals : principal}});
    }
  });
  ForEachDevice(server, [&](const DeviceWorker& worker, const auto& device) {
    to.Gauge("backboned_device_queue_length", "Work that waits for a device.",
             worker.queued(), {{"device", device}});
  });
  ForEachDevice(server, [&](const DeviceWorker& worker, const auto& device) {
    to.Gauge("backboned_device_backlog_seconds",
             "How long that will take, by what work took of late.",
             absl::ToDoubleSeconds(worker.backlog()), {{"device", device}});
  });
  ForEachDevice(server, [&](const DeviceWorker& worker, const auto& device) {
    const DeviceWorker::BatchFigures figures = worker.batch_figures();
    for (size_t reason = 0; reason < figures.batches.size(); ++reason) {
      to.Counter(
          "backboned_batches_total", "What ran, by why it left the queue.",
          figures.batches[reason],
          {{"device", device}, {"reason", std::string(kBatchReasons[reason])}});
    }
  });
  ForEachDevice(server, [&](const DeviceWorker& worker, const auto& device) {
    to.Counter("backboned_merged_forwards_total",
               "Forwards that ran together with others.",
               worker.batch_figures().merged_items, {{"device", device}});
  });
  ForEachDevice(server, [&](const DeviceWorker& worker, const auto& device) {
    CollectBatchSizes(worker.batch_figures(), device, to);
  });
}

}  // namespace

std::vector<MetricFamily> FiguresOf(const rpc::RpcServer& rpc) {
  Server& server = rpc.server();
  Collector collector;
  CollectServer(rpc, collector);
  CollectLimited(rpc, collector);
  CollectCheckpoints(rpc.server(), collector);
  const Registry::Totals totals = server.registry().totals();
  CollectTapes(server, totals, collector);
  CollectCaches(server, totals, collector);
  CollectMemory(server, collector);
  CollectDevices(server, collector);
  return collector.Take();
}

}  // namespace backboned::admin
