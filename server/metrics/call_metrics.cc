#include "server/metrics/call_metrics.h"

namespace backboned {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildHistogram;

// Seconds. A forward of a small network takes 0.3 ms, and one that waits for
// many others may take a minute.
const prometheus::Histogram::BucketBoundaries kSeconds = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25,   0.5,   1,      2.5,   5,    10,    30,   60};

}  // namespace

CallMetrics::CallMetrics()
    : calls_(BuildCounter()
                 .Name("backboned_calls_total")
                 .Help("Calls that ended, refused ones too, by code.")
                 .Register(registry_)),
      principal_calls_(BuildCounter()
                           .Name("backboned_principal_calls_total")
                           .Help("Calls of a principal that ended, by code.")
                           .Register(registry_)),
      streams_(BuildCounter()
                   .Name("backboned_streams_total")
                   .Help("Streams of calls that ended, by code.")
                   .Register(registry_)),
      bytes_in_(BuildCounter()
                    .Name("backboned_call_received_bytes_total")
                    .Help("Bytes of messages that calls received.")
                    .Register(registry_)),
      bytes_out_(BuildCounter()
                     .Name("backboned_call_sent_bytes_total")
                     .Help("Bytes of messages that calls sent.")
                     .Register(registry_)),
      total_(BuildHistogram()
                 .Name("backboned_call_duration_seconds")
                 .Help("From a call's first message to its end.")
                 .Register(registry_)),
      queue_(BuildHistogram()
                 .Name("backboned_call_queue_seconds")
                 .Help("How long the work of calls waited for its device.")
                 .Register(registry_)),
      compute_(BuildHistogram()
                   .Name("backboned_call_compute_seconds")
                   .Help("How long the work of calls ran on its device.")
                   .Register(registry_)),
      unknown_(*methods_.try_emplace("unknown").first) {}

CallMetrics::Methods::value_type& CallMetrics::Find(std::string_view method) {
  const auto found = methods_.find(method);
  return found == methods_.end() ? unknown_ : *found;
}

void CallMetrics::Make(Methods::value_type& method) {
  const prometheus::Labels labels = {{"method", method.first}};
  method.second.bytes_in = &bytes_in_.Add(labels);
  method.second.bytes_out = &bytes_out_.Add(labels);
  method.second.total = &total_.Add(labels, kSeconds);
  method.second.queue = &queue_.Add(labels, kSeconds);
  method.second.compute = &compute_.Add(labels, kSeconds);
}

void CallMetrics::CountCode(Methods::value_type& method,
                            absl::StatusCode code) {
  std::atomic<prometheus::Counter*>& known =
      method.second.by_code[static_cast<size_t>(code)];
  prometheus::Counter* counter = known.load(std::memory_order_acquire);
  if (counter == nullptr) {  // Add gives the one that is there, if any is.
    prometheus::Labels labels = {{"code", absl::StatusCodeToString(code)}};
    if (!method.second.is_stream) labels.emplace("method", method.first);
    counter = &(method.second.is_stream ? streams_ : calls_).Add(labels);
    known.store(counter, std::memory_order_release);
  }
  counter->Increment();
}

void CallMetrics::CountPrincipal(std::string_view principal,
                                 absl::StatusCode code) {
  absl::MutexLock lock(&mutex_);
  auto found = principals_.find(principal);
  if (found == principals_.end()) {
    if (principals_.size() >= kMostPrincipals) principal = kOtherPrincipals;
    found = principals_.try_emplace(std::string(principal)).first;
  }
  prometheus::Counter*& counter = found->second[static_cast<size_t>(code)];
  if (counter == nullptr) {
    counter = &principal_calls_.Add({{"code", absl::StatusCodeToString(code)},
                                     {"principal", found->first}});
  }
  counter->Increment();
}

void CallMetrics::CountRefused(std::string_view method, absl::StatusCode code) {
  CountCode(Find(method), code);
}

void CallMetrics::Count(std::string_view method, const Ended& call) {
  Methods::value_type& found = Find(method);
  CountCode(found, call.code);
  Method& metrics = found.second;
  if (metrics.is_stream) return;
  CountPrincipal(call.principal, call.code);
  std::call_once(metrics.made, [&] { Make(found); });
  metrics.bytes_in->Increment(static_cast<double>(call.bytes_in));
  metrics.bytes_out->Increment(static_cast<double>(call.bytes_out));
  metrics.total->Observe(absl::ToDoubleSeconds(call.total));
  if (call.compute <= absl::ZeroDuration()) return;
  metrics.queue->Observe(absl::ToDoubleSeconds(call.queue));
  metrics.compute->Observe(absl::ToDoubleSeconds(call.compute));
}

}  // namespace backboned
