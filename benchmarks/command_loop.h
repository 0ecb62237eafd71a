// Answers commands for the programs that measure, and times their calls.
//
// A program reads commands from its standard input, a JSON object a line, and
// prints the answer to each. In between it blocks in read(), so that it takes
// no time from other measurements.

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

// The durations of the calls of one round.
struct Round {
  std::vector<double> latencies_s;
  double wall_s = 0;  // From the first call's start to the last one's end.
};

// Makes calls for a command's `seconds`, and at least its `min_calls`. The
// first `warmup` calls do not count.
Round MeasureRound(const Json& command, absl::FunctionRef<void()> call);

// Does the same in `in_flight` threads at once, with the calls of all.
Round MeasureRound(const Json& command, int in_flight,
                   absl::FunctionRef<void()> call);

// Returns the smallest of `sorted`, which is not empty, that `percent` of the
// values do not exceed.
double Percentile(const std::vector<double>& sorted, double percent);

// Returns {"latency_s": [...], "wall_s": ...}.
Json ToJson(const Round& round);

}  // namespace backboned::bench

#endif  // BACKBONED_BENCHMARKS_COMMAND_LOOP_H_
