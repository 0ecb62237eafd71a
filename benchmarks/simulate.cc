// bench-simulate: runs the server's Scheduler in simulated time, with simulated
// clients and a simulated device.
//
// One command:
//
//   {"do": "simulate", "seconds": S, "seed": 0, "max_batch": 64,
//    "max_delay_us": 0, "max_queued": 4096, "shares": {P: WEIGHT},
//    "device_s": {"1": T1, "8": T8, ...},
//    "clients": [{"count": N, "principal": "local", "run": R,
//                 "in_flight": K, "samples": 1, "allow_merge": true, "lane":
//                 false, "pause_s": 0, "rate": 0, "device_s": T}]}
//
// `device_s` is the device's time for a batch by its samples: interpolated
// between two entries, and proportional behind the last one. Requests of a
// client with its own `device_s` take that time. A closed loop (no `rate`) has
// `in_flight` requests at a time and pauses between an answer and the next
// request, with the mean `pause_s`, exponentially distributed; with a `rate`,
// requests come as a Poisson process. Clients of the same `run` have one share
// together; without a `run` each has its own. With `lane` a client's requests
// run one after another. Merging clients share one trunk.
//
// The same command gives the same answer, to the bit.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <queue>
#include <random>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "benchmarks/command_loop.h"
#include "server/scheduler/scheduler.h"

namespace backboned::bench {
namespace {

constexpr double kMaxSeconds = 100'000;
constexpr int64_t kMaxRequests = 20'000'000;
constexpr uint64_t kTrunk = 1;
// The time until a refused client of a closed loop tries again.
constexpr double kRetryS = 0.1;

// The device's time for a batch.
class DeviceTimes {
 public:
  explicit DeviceTimes(const Json& json) {
    for (const auto& [samples, seconds] : json.items()) {
      by_samples_[std::stoll(samples)] = seconds.get<double>();
    }
    if (by_samples_.empty() || by_samples_.begin()->first < 1) {
      throw std::runtime_error("device_s has times of 1 and more samples");
    }
  }

  double operator()(int64_t samples) const {
    const auto above = by_samples_.lower_bound(samples);
    if (above == by_samples_.end()) {
      const auto& [most, seconds] = *by_samples_.rbegin();
      return seconds * Ratio(samples, most);
    }
    if (above->first == samples || above == by_samples_.begin()) {
      return above->second;
    }
    const auto& [less, seconds] = *std::prev(above);
    const double part = Ratio(samples - less, above->first - less);
    return seconds + (above->second - seconds) * part;
  }

 private:
  static double Ratio(int64_t a, int64_t b) {
    return static_cast<double>(a) / static_cast<double>(b);
  }

  std::map<int64_t, double> by_samples_;
};

// A client, and the outcome of its requests.
struct SimulatedClient {
  FlowName flow;
  int in_flight = 1;
  int64_t samples = 1;
  bool allow_merge = false;
  uint64_t lane = 0;
  double pause_s = 0;
  double rate = 0;
  double device_s = 0;  // 0: from the table.

  std::vector<double> latencies_s = {};  // By answer.
  int64_t refused = 0;
  double device_share_s = 0;
};

std::vector<SimulatedClient> MakeClients(const Json& command) {
  std::vector<SimulatedClient> clients;
  for (const Json& json : command.at("clients")) {
    const int count = json.value("count", 1);
    for (int i = 0; i < count; ++i) {
      const uint64_t number = clients.size() + 1;
      clients.push_back(
          {.flow = {json.value("principal", "local"),
                    json.value("run", absl::StrCat("run-", number))},
           .in_flight = json.value("in_flight", 1),
           .samples = json.value("samples", int64_t{1}),
           .allow_merge = json.value("allow_merge", false),
           .lane = json.value("lane", false) ? number : 0,
           .pause_s = json.value("pause_s", 0.0),
           .rate = json.value("rate", 0.0),
           .device_s = json.value("device_s", 0.0)});
      const SimulatedClient& client = clients.back();
      if (client.in_flight < 1 || client.samples < 1 || client.pause_s < 0 ||
          client.rate < 0 || client.device_s < 0) {
        throw std::runtime_error("a client is not possible: " + json.dump());
      }
      if (client.allow_merge && (client.lane != 0 || client.device_s > 0)) {
        throw std::runtime_error(
            "what merges has no lane and no time of its own");
      }
    }
  }
  if (clients.empty()) throw std::runtime_error("there are no clients");
  return clients;
}

SchedulerOptions MakeOptions(const Json& command) {
  SchedulerOptions options = {
      .max_queued = command.value("max_queued", int64_t{4096}),
      .max_queued_by_flow = command.value("max_queued", int64_t{4096}),
      .max_batch = command.value("max_batch", int64_t{64}),
      .max_delay =
          absl::Microseconds(command.value("max_delay_us", int64_t{0}))};
  if (command.contains("shares")) {
    const auto weights = command["shares"].get<std::map<std::string, double>>();
    for (const auto& [principal, weight] : weights) {
      if (!(weight > 0)) throw std::runtime_error("a weight is above 0");
    }
    options.weight_of = [weights](const std::string& principal) {
      const auto found = weights.find(principal);
      return found == weights.end() ? 1 : found->second;
    };
  }
  return options;
}

// Returns 1 if all have the same, 1/n if one has all. Jain, Chiu, Hawe 1984.
double JainIndex(const std::vector<double>& values) {
  double sum = 0, squares = 0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
  }
  if (squares == 0) return 1;
  return sum * sum / (static_cast<double>(values.size()) * squares);
}

const char* NameOf(BatchReason reason) {
  switch (reason) {
    case BatchReason::kAlone:
      return "alone";
    case BatchReason::kFull:
      return "full";
    case BatchReason::kDelay:
      return "delay";
    case BatchReason::kIncompatible:
      return "incompatible";
    case BatchReason::kDeviceIdle:
      return "device_idle";
  }
  return "unknown";
}

// A run of clients, scheduler and device.
class Simulation {
 public:
  explicit Simulation(const Json& command)
      : seconds_(command.at("seconds").get<double>()),
        times_(command.at("device_s")),
        clients_(MakeClients(command)),
        merging_(command.value("max_batch", int64_t{64}) > 0),
        random_(command.value("seed", uint64_t{0})),
        scheduler_(MakeOptions(command)) {
    if (!(seconds_ > 0) || seconds_ > kMaxSeconds) {
      throw std::runtime_error(
          absl::StrCat("a simulation takes at most ", kMaxSeconds, " s"));
    }
  }

  Json Run() {
    for (size_t c = 0; c < clients_.size(); ++c) {
      const bool open = clients_[c].rate > 0;
      for (int i = 0; i < (open ? 1 : clients_[c].in_flight); ++i) {
        // Not all at the same moment.
        ArriveAfter(Exponential(open ? 1 / clients_[c].rate : kStartS), c);
      }
    }
    const absl::Time end = absl::UnixEpoch() + absl::Seconds(seconds_);
    while (now_ < end) Step();
    return Report();
  }

 private:
  // The time within which closed loops start.
  static constexpr double kStartS = 1e-3;

  using Arrival = std::pair<absl::Time, size_t>;

  struct Request {
    size_t client;
    absl::Time arrived;
  };

  double Exponential(double mean) {
    if (mean <= 0) return 0;
    return std::exponential_distribution<double>(1 / mean)(random_);
  }

  void ArriveAfter(double seconds, size_t client) {
    arrivals_.emplace(now_ + absl::Seconds(seconds), client);
  }

  // Submits the requests that came, and then runs one batch on the device.
  void Step() {
    SubmitUntil(now_);
    const Scheduler::Dispatch dispatch = scheduler_.Next(now_);
    if (!dispatch.run.empty()) {
      RunBatch(dispatch);
      return;
    }
    now_ = dispatch.wake;
    if (!arrivals_.empty()) now_ = std::min(now_, arrivals_.top().first);
  }

  // Advances the time, and submits the requests that come until then.
  void SubmitUntil(absl::Time time) {
    while (!arrivals_.empty() && arrivals_.top().first <= time) {
      const auto [arrived, client] = arrivals_.top();
      arrivals_.pop();
      now_ = std::max(now_, arrived);
      Submit(client);
    }
    now_ = time;
  }

  void Submit(size_t c) {
    SimulatedClient& client = clients_[c];
    if (++next_id_ > static_cast<uint64_t>(kMaxRequests)) {
      throw std::runtime_error("too many requests: simulate fewer seconds");
    }
    const bool merges = client.allow_merge && merging_;
    const absl::Status status =
        scheduler_.Submit({.id = next_id_,
                           .flow = client.flow,
                           .lane = client.lane,
                           .merge_key = merges ? kTrunk : 0,
                           .samples = client.samples},
                          now_);
    if (status.ok()) {
      requests_[next_id_] = {c, now_};
    } else {
      ++client.refused;
      if (client.rate == 0) ArriveAfter(kRetryS, c);
    }
    if (client.rate > 0) ArriveAfter(Exponential(1 / client.rate), c);
  }

  void RunBatch(const Scheduler::Dispatch& dispatch) {
    int64_t samples = 0;
    for (const uint64_t id : dispatch.run) samples += ClientOf(id).samples;
    const double own = ClientOf(dispatch.run[0]).device_s;
    const double cost = own > 0 ? own : times_(samples);
    SubmitUntil(now_ + absl::Seconds(cost));
    busy_s_ += cost;
    ++batches_[NameOf(dispatch.reason)];
    scheduler_.Done(dispatch.run[0], absl::Seconds(cost), now_);
    for (const uint64_t id : dispatch.run) {
      const Request request = requests_.at(id);
      requests_.erase(id);
      SimulatedClient& client = clients_[request.client];
      client.device_share_s += cost * static_cast<double>(client.samples) /
                               static_cast<double>(samples);
      client.latencies_s.push_back(
          absl::ToDoubleSeconds(now_ - request.arrived));
      if (client.rate == 0) {
        ArriveAfter(Exponential(client.pause_s), request.client);
      }
    }
  }

  const SimulatedClient& ClientOf(uint64_t id) const {
    return clients_[requests_.at(id).client];
  }

  Json Report() {
    int64_t samples = 0, refused = 0, batches = 0;
    std::vector<double> all_s, shares;
    Json each = Json::array();
    const double took = absl::ToDoubleSeconds(now_ - absl::UnixEpoch());
    for (SimulatedClient& client : clients_) {
      const auto answers = static_cast<int64_t>(client.latencies_s.size());
      samples += answers * client.samples;
      refused += client.refused;
      all_s.insert(all_s.end(), client.latencies_s.begin(),
                   client.latencies_s.end());
      shares.push_back(client.device_share_s);
      each.push_back({{"throughput", static_cast<double>(answers) / took},
                      {"device_share", client.device_share_s / took},
                      {"percentiles_s", Percentiles(client.latencies_s)},
                      {"refused", client.refused}});
    }
    for (const auto& [reason, count] : batches_) batches += count;
    return {{"throughput", static_cast<double>(all_s.size()) / took},
            {"samples_per_s", static_cast<double>(samples) / took},
            {"busy", busy_s_ / took},
            {"refused", refused},
            {"percentiles_s", Percentiles(all_s)},
            {"jain", JainIndex(shares)},
            {"batches", batches_},
            {"samples_per_batch",
             static_cast<double>(samples) /
                 static_cast<double>(std::max<int64_t>(batches, 1))},
            {"clients", std::move(each)}};
  }

  static Json Percentiles(std::vector<double>& latencies_s) {
    if (latencies_s.empty()) return Json::object();
    std::sort(latencies_s.begin(), latencies_s.end());
    return {{"50", Percentile(latencies_s, 50)},
            {"99", Percentile(latencies_s, 99)}};
  }

  const double seconds_;
  const DeviceTimes times_;
  std::vector<SimulatedClient> clients_;
  const bool merging_;
  std::mt19937_64 random_;
  Scheduler scheduler_;
  absl::Time now_ = absl::UnixEpoch();
  std::priority_queue<Arrival, std::vector<Arrival>, std::greater<>> arrivals_;
  std::unordered_map<uint64_t, Request> requests_;  // Not yet answered.
  uint64_t next_id_ = 0;
  std::map<std::string, int64_t> batches_;  // By reason.
  double busy_s_ = 0;
};

Json Simulate(const Json& command) {
  if (command.at("do") != "simulate") {
    throw std::runtime_error("unknown command " + command.dump());
  }
  return Simulation(command).Run();
}

}  // namespace
}  // namespace backboned::bench

int main() { backboned::bench::ServeCommands(backboned::bench::Simulate); }
