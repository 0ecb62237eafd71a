// Measures what counting a call adds to it.

#include "server/metrics/call_metrics.h"

#include <benchmark/benchmark.h>

namespace backboned {
namespace {

constexpr CallMetrics::Ended kForward = {.principal = "alice",
                                         .total = absl::Milliseconds(3),
                                         .queue = absl::Microseconds(80),
                                         .compute = absl::Milliseconds(2),
                                         .bytes_in = 100'352,
                                         .bytes_out = 1'360};

CallMetrics& Metrics() {
  static CallMetrics* const metrics = [] {
    auto* const made = new CallMetrics;
    for (const char* method : {"Backward", "Forward", "GetParams", "SetParams",
                               "TrainStep", "GetServer", "CreateInstance"}) {
      made->AddMethod(method);
    }
    return made;
  }();
  return *metrics;
}

void CountForward(benchmark::State& state) {
  for (auto _ : state) Metrics().Count("Forward", kForward);
}
BENCHMARK(CountForward)->Threads(1)->Threads(2)->UseRealTime();

void CountFailure(benchmark::State& state) {
  for (auto _ : state) {
    Metrics().Count("GetServer", {.code = absl::StatusCode::kNotFound,
                                  .principal = "alice"});
  }
}
BENCHMARK(CountFailure);

}  // namespace
}  // namespace backboned
