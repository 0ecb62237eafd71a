#include "benchmarks/command_loop.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <exception>
#include <iostream>
#include <string>
#include <thread>

namespace backboned::bench {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

void ServeCommands(absl::FunctionRef<Json(const Json& command)> handle) {
  std::string line;
  while (std::getline(std::cin, line)) {
    Json answer;
    try {
      answer = handle(Json::parse(line));
    } catch (const std::exception& error) {
      answer = {{"error", error.what()}};
    }
    std::cout << answer.dump() << std::endl;
  }
}

Round MeasureRound(const Json& command, absl::FunctionRef<void()> call) {
  return MeasureRound(command, 1, call);
}

Round MeasureRound(const Json& command, int in_flight,
                   absl::FunctionRef<void()> call) {
  const double seconds = command.at("seconds").get<double>();
  const int warmup = command.value("warmup", 1);
  const size_t min_calls = command.value("min_calls", size_t{1});
  const auto threads = static_cast<size_t>(in_flight);
  std::vector<Round> parts(threads);
  std::vector<std::exception_ptr> errors(threads);
  std::barrier ready(in_flight);
  const auto run = [&](size_t index) {
    try {
      for (int i = 0; i < warmup; ++i) call();
    } catch (...) {
      errors[index] = std::current_exception();
    }
    ready.arrive_and_wait();
    if (errors[index]) return;
    const Clock::time_point first = Clock::now();
    Clock::time_point last = first;
    std::vector<double>& latencies_s = parts[index].latencies_s;
    try {
      while (Seconds(last - first) < seconds ||
             latencies_s.size() < min_calls) {
        call();
        const Clock::time_point now = Clock::now();
        latencies_s.push_back(Seconds(now - last));
        last = now;
      }
    } catch (...) {
      errors[index] = std::current_exception();
    }
    parts[index].wall_s = Seconds(last - first);
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < threads; ++i) others.emplace_back(run, i);
  run(0);
  for (std::thread& other : others) other.join();
  Round round;
  for (size_t i = 0; i < threads; ++i) {
    if (errors[i]) std::rethrow_exception(errors[i]);
    round.wall_s = std::max(round.wall_s, parts[i].wall_s);
    round.latencies_s.insert(round.latencies_s.end(),
                             parts[i].latencies_s.begin(),
                             parts[i].latencies_s.end());
  }
  return round;
}

double Percentile(const std::vector<double>& sorted, double percent) {
  const double rank =
      std::ceil(percent / 100 * static_cast<double>(sorted.size()));
  return sorted[std::max<size_t>(1, static_cast<size_t>(rank)) - 1];
}

Json ToJson(const Round& round) {
  return {{"latency_s", round.latencies_s}, {"wall_s", round.wall_s}};
}

}  // namespace backboned::bench
