// Measures what counting the usage of a call adds to it.

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/usage/usage_log.h"

namespace backboned {
namespace {

constexpr UsageAmounts kForward = {.calls = 1,
                                   .device_time = absl::Milliseconds(2),
                                   .flops = 3e9,
                                   .bytes_in = 100'352,
                                   .bytes_out = 1'360};

// Of so many networks, one after another.
void CountForward(benchmark::State& state) {
  static UsageLog& log = *UsageLog::Open({})->release();
  std::vector<std::string> names;
  for (int i = 0; i < state.range(0); ++i) {
    names.push_back(absl::StrCat("alice/network-", i));
  }
  const std::string uid(32, 'a');
  size_t next = 0;
  for (auto _ : state) {
    log.Count({"alice", names[next++ % names.size()], uid, "run-of-alice"},
              kForward);
  }
}
BENCHMARK(CountForward)
    ->Arg(1)
    ->Arg(500)
    ->Threads(1)
    ->Threads(2)
    ->UseRealTime();

// Of a page of a query over 100,000 rows, as many as memory keeps.
void Sum(benchmark::State& state) {
  absl::Time date = absl::FromUnixSeconds(1'800'000'000);
  const auto log = *UsageLog::Open({.date = [&date] { return date; }});
  for (int hour = 0; hour < 250; ++hour, date += absl::Hours(1)) {
    for (int i = 0; i < 400; ++i) {
      const std::string user = absl::StrCat("user", i % 20);
      log->Count({user, absl::StrCat(user, "/network-", i),
                  absl::StrFormat("%032d", i), "run"},
                 kForward);
    }
    if (!log->Flush().ok()) state.SkipWithError("not written");
  }
  const UsageLog::Query query = {
      .by_principal = true, .by_instance = true, .limit = 101};
  for (auto _ : state) {
    if (!log->Sum(query).ok()) state.SkipWithError("not read");
  }
}
BENCHMARK(Sum)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace backboned
