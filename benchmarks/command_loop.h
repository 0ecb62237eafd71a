// What the programs that measure share: commands come in, durations go out.
//
// A program reads commands from its standard input, a JSON object a line, and
// prints the answer to each. In between it is blocked in read(), so that it
// takes nothing from what is measured elsewhere.

#ifndef BACKBONED_BENCHMARKS_COMMAND_LOOP_H_
#define BACKBONED_BENCHMARKS_COMMAND_LOOP_H_

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/functional/function_ref.h"

namespace backboned::bench {

using Json = nlohmann::json;

// Answers commands with `handle` until standard input ends. An exception
// becomes the answer {"error": text}.
void ServeCommands(absl::FunctionRef<Json(const Json& command)> handle);

// What calls took that were made in one round.
struct Round {
  std::vector<double> latencies_s;
  double wall_s = 0;  // From the first call's beginning to the last one's end.
};

// Makes calls for a command's `seconds`, and at least its `min_calls`. The
// first `warmup` calls come before and do not count.
Round MeasureRound(const Json& command, absl::FunctionRef<void()> call);

// The same in `in_flight` threads at once, with the calls of all.
Round MeasureRound(const Json& command, int in_flight,
                   absl::FunctionRef<void()> call);

// The smallest of `sorted`, at least one value, that `percent` of all do not
// exceed.
double Percentile(const std::vector<double>& sorted, double percent);

// {"latency_s": [...], "wall_s": ...}
Json ToJson(const Round& round);

}  // namespace backboned::bench

#endif  // BACKBONED_BENCHMARKS_COMMAND_LOOP_H_
