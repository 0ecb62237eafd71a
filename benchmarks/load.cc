// bench-load: runs many clients of one server at a time, with the C++ library
// and without LibTorch.
//
// Each client has a connection and a session of its own. One command:
//
//   {"do": "load", "target": T, "seconds": S, "warmup_s": W, "seed": 0,
//    "clients": [{"instance": I, "count": N, "label": L, "in_flight": K,
//                 "rate": R, "arrivals": "fixed" | "poisson",
//                 "mix": [{"do": "forward" | "step" | "get_params",
//                          "weight": 1, "shape": [N, C, H, W],
//                          "allow_merge": false}]}]}
//
// `count` clients are equal; with a label, their labels are L-1, L-2, ...
// Without a `rate` a client is a closed loop: it has `in_flight` calls at a
// time, and each answer starts the next call. With a `rate` it is an open loop:
// calls are due `rate` times a second, evenly or as a Poisson process, whatever
// the server does, with at most `in_flight` at a time. Its latencies count from
// the time when a call was due, so that they include the wait for a free place.
// A step is a training forward that is kept, and its backward into the
// instance's gradients.
//
// The answer has the latencies of all calls that were started (or due) in the S
// seconds after the warm-up, the throughput by the calls that ended in them,
// and the errors by code, in all and for each client. Targets are Unix sockets
// and loopback.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "benchmarks/command_loop.h"
#include "client/cpp/client.h"

namespace backboned::bench {
namespace {

using client::Backbone;
using client::Client;
using Clock = std::chrono::steady_clock;

constexpr double kMaxSeconds = 600;
constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxCalls = 1'000'000;

double Seconds(Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

Clock::duration Duration(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(seconds));
}

template <typename T>
T Value(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

// A kind of call.
class Kind {
 public:
  explicit Kind(const Json& json)
      : what_(json.at("do").get<std::string>()),
        weight_(json.value("weight", 1.0)) {
    if (what_ != "forward" && what_ != "step" && what_ != "get_params") {
      throw std::runtime_error("unknown call " + json.dump());
    }
    if (weight_ <= 0) throw std::runtime_error("a weight is above 0");
    if (what_ == "get_params") return;
    header_.set_training(what_ == "step");
    header_.set_tape(what_ == "step");
    header_.set_allow_merge(json.value("allow_merge", false));
    v1::TensorSpec& spec = *header_.add_inputs();
    spec.set_dtype(v1::DATA_TYPE_FLOAT32);
    size_t count = 1;
    for (const int64_t size : json.at("shape").get<std::vector<int64_t>>()) {
      spec.add_shape(size);
      count *= static_cast<size_t>(size);
    }
    if (spec.shape().empty()) throw std::runtime_error("a shape is empty");
    std::mt19937 random(0);
    std::uniform_real_distribution<float> values(-1, 1);
    for (size_t i = 0; i < count; ++i) input_.push_back(values(random));
  }

  double weight() const { return weight_; }

  // Returns the rows of the input; 0 if there is none.
  int64_t samples() const {
    return header_.inputs().empty() ? 0 : header_.inputs(0).shape(0);
  }

  // Makes a call. All answers are read to the same memory.
  absl::Status Call(const Backbone& net,
                    client::Received<v1::GetParamsResult>& params) const {
    if (what_ == "get_params") return Read(net, params);
    const auto forward =
        net.Forward(header_, {std::as_bytes(std::span(input_))});
    if (!forward.ok() || what_ == "forward") return forward.status();
    return Backward(net, *forward);
  }

 private:
  static absl::Status Read(const Backbone& net,
                           client::Received<v1::GetParamsResult>& params) {
    if (params.tensors.size() > 0) {
      return net.GetParams({}, params.tensors[0]).status();
    }
    auto first = net.GetParams();
    if (!first.ok()) return first.status();
    params = *std::move(first);
    return absl::OkStatus();
  }

  // Runs a backward of the sum of the outputs.
  static absl::Status Backward(
      const Backbone& net, const client::Received<v1::ForwardResult>& forward) {
    v1::BackwardHeader header;
    header.set_accumulate(true);
    header.set_zero_before(true);
    v1::TapeGradients& tape = *header.add_tapes();
    tape.set_tape_id(forward.result.tape_id());
    *tape.add_gradients() = forward.result.outputs(0);
    const std::vector<float> ones(forward.tensors[0].size() / sizeof(float), 1);
    return net.Backward(header, {std::as_bytes(std::span(ones))}).status();
  }

  const std::string what_;
  const double weight_;
  v1::ForwardHeader header_;
  std::vector<float> input_;
};

// The part of a run that counts.
struct Window {
  Clock::time_point begin;  // The warm-up's.
  Clock::time_point from;
  Clock::time_point to;
};

// Counts and durations of calls.
struct Tally {
  std::vector<double> latencies_s;
  int64_t calls = 0;  // Successful ones inside the window.
  int64_t samples = 0;
  int64_t unstarted = 0;
  std::map<std::string, int64_t> errors;

  void Add(const Tally& other) {
    latencies_s.insert(latencies_s.end(), other.latencies_s.begin(),
                       other.latencies_s.end());
    calls += other.calls;
    samples += other.samples;
    unstarted += other.unstarted;
    for (const auto& [code, count] : other.errors) errors[code] += count;
  }
};

Json ToJson(Tally tally, double seconds) {
  std::sort(tally.latencies_s.begin(), tally.latencies_s.end());
  Json json = {{"calls", tally.calls},
               {"latency_s", tally.latencies_s},
               {"throughput", static_cast<double>(tally.calls) / seconds},
               {"samples_per_s", static_cast<double>(tally.samples) / seconds},
               {"unstarted", tally.unstarted},
               {"errors", tally.errors},
               {"percentiles_s", Json::object()}};
  if (tally.latencies_s.empty()) return json;
  for (const char* percent : {"50", "90", "99", "99.9"}) {
    json["percentiles_s"][percent] =
        Percentile(tally.latencies_s, std::stod(percent));
  }
  json["percentiles_s"]["100"] = tally.latencies_s.back();
  return json;
}

// A client: its connection and its calls.
class LoadClient {
 public:
  LoadClient(const std::string& target, const Json& json,
             const std::string& label, uint64_t seed)
      : label_(label),
        in_flight_(json.value("in_flight", 1)),
        rate_(json.value("rate", 0.0)),
        poisson_(json.value("arrivals", "poisson") == "poisson"),
        random_(seed),
        // Refused calls are counted.
        server_(Value(Client::Connect(
            target, {.label = label, .retry_timeout = absl::ZeroDuration()}))),
        net_(server_.backbone(json.at("instance").get<std::string>())) {
    if (in_flight_ < 1) throw std::runtime_error("in_flight is at least 1");
    if (rate_ < 0) throw std::runtime_error("a rate is not negative");
    std::vector<double> weights;
    for (const Json& kind : json.at("mix")) {
      kinds_.push_back(std::make_unique<Kind>(kind));
      weights.push_back(kinds_.back()->weight());
    }
    if (kinds_.empty()) throw std::runtime_error("a mix is empty");
    choice_ =
        std::discrete_distribution<size_t>(weights.begin(), weights.end());
  }

  int in_flight() const { return in_flight_; }

  // Sets the window. Call this once, before Run.
  void Begin(const Window& window) {
    window_ = window;
    next_ = window.begin;
  }

  // Makes calls until the window ends; called by `in_flight` threads.
  void Run() {
    client::Received<v1::GetParamsResult> params;
    while (const std::optional<Start> start = NextStart()) {
      const absl::Status status = start->kind->Call(net_, params);
      const Clock::time_point end = Clock::now();
      Note(*start, status, end);
      if (status.ok()) continue;
      const auto delay = client::RetryDelayOf(status);
      const double left = Seconds(window_.to - end);
      absl::SleepFor(std::clamp(delay.value_or(absl::Milliseconds(10)),
                                absl::ZeroDuration(),
                                absl::Seconds(std::max(left, 0.0))));
    }
  }

  const Tally& tally() const { return tally_; }

  Json Report(double seconds) const {
    Json json = ToJson(tally_, seconds);
    json["label"] = label_;
    return json;
  }

 private:
  // A call, and the time when it was due.
  struct Start {
    Clock::time_point meant;
    const Kind* kind;
  };

  // Waits for the next call's time; returns empty if the window ends before.
  std::optional<Start> NextStart() {
    Start start = {};
    {
      const std::lock_guard lock(mutex_);
      start.kind = kinds_[choice_(random_)].get();
      start.meant = rate_ > 0 ? NextArrival() : Clock::now();
      if (start.meant >= window_.to || ++started_ > kMaxCalls) {
        return std::nullopt;
      }
      if (rate_ > 0 && Clock::now() >= window_.to) {
        CountUnstarted();
        return std::nullopt;
      }
    }
    std::this_thread::sleep_until(start.meant);
    return start;
  }

  Clock::time_point NextArrival() {
    const Clock::time_point arrival = next_;
    const double gap =
        poisson_ ? std::exponential_distribution<double>(rate_)(random_)
                 : 1 / rate_;
    next_ += Duration(gap);
    return arrival;
  }

  // Counts the call just drawn, and the others due by the end of the window.
  void CountUnstarted() {
    ++tally_.unstarted;
    while (next_ < window_.to && ++started_ <= kMaxCalls) {
      NextArrival();
      ++tally_.unstarted;
    }
  }

  void Note(const Start& start, const absl::Status& status,
            Clock::time_point end) {
    const std::lock_guard lock(mutex_);
    if (!status.ok()) {
      ++tally_.errors[absl::StatusCodeToString(status.code())];
      return;
    }
    if (start.meant >= window_.from) {
      tally_.latencies_s.push_back(Seconds(end - start.meant));
    }
    if (end < window_.from || end > window_.to) return;
    ++tally_.calls;
    tally_.samples += start.kind->samples();
  }

  const std::string label_;
  const int in_flight_;
  const double rate_;  // Calls a second; 0: a closed loop.
  const bool poisson_;
  std::vector<std::unique_ptr<Kind>> kinds_;

  std::mutex mutex_;  // Guards the members below, except the connection.
  std::mt19937_64 random_;
  std::discrete_distribution<size_t> choice_;
  Window window_;
  Clock::time_point next_;
  int64_t started_ = 0;
  Tally tally_;

  const Client server_;
  const Backbone net_;
};

using Clients = std::vector<std::unique_ptr<LoadClient>>;

bool IsLocal(const std::string& target) {
  return absl::StartsWith(target, "unix:") ||
         absl::StartsWith(target, "127.") ||
         absl::StartsWith(target, "localhost:") ||
         absl::StartsWith(target, "[::1]:");
}

Clients Connect(const Json& command) {
  const auto target = command.at("target").get<std::string>();
  if (!IsLocal(target)) {
    throw std::runtime_error("the target is not on this machine: " + target);
  }
  const auto seed = command.value("seed", uint64_t{0});
  Clients clients;
  int threads = 0;
  for (const Json& json : command.at("clients")) {
    const int count = json.value("count", 1);
    const std::string label = json.value("label", "");
    for (int i = 1; i <= count; ++i) {
      const bool numbered = count > 1 && !label.empty();
      clients.push_back(std::make_unique<LoadClient>(
          target, json, numbered ? absl::StrCat(label, "-", i) : label,
          seed + clients.size()));
      threads += clients.back()->in_flight();
      if (threads > kMaxThreads) {
        throw std::runtime_error(
            absl::StrCat("at most ", kMaxThreads, " calls at a time"));
      }
    }
  }
  if (clients.empty()) throw std::runtime_error("there are no clients");
  return clients;
}

// Runs all threads of all clients, from the same moment.
void RunAll(const Clients& clients, double warmup_s, double seconds) {
  std::vector<std::thread> threads;
  std::latch ready(1);
  for (const auto& client : clients) {
    for (int i = 0; i < client->in_flight(); ++i) {
      threads.emplace_back([&ready, &client] {
        ready.wait();
        client->Run();
      });
    }
  }
  const Clock::time_point begin = Clock::now();
  const Clock::time_point from = begin + Duration(warmup_s);
  for (const auto& client : clients) {
    client->Begin(
        {.begin = begin, .from = from, .to = from + Duration(seconds)});
  }
  ready.count_down();
  for (std::thread& thread : threads) thread.join();
}

Json Load(const Json& command) {
  if (command.at("do") != "load") {
    throw std::runtime_error("unknown command " + command.dump());
  }
  const double seconds = command.at("seconds").get<double>();
  const double warmup_s = command.value("warmup_s", 0.0);
  if (!(seconds > 0) || !(warmup_s >= 0) || seconds + warmup_s > kMaxSeconds) {
    throw std::runtime_error(
        absl::StrCat("a run takes at most ", kMaxSeconds, " s"));
  }
  const Clients clients = Connect(command);
  RunAll(clients, warmup_s, seconds);
  Tally all;
  Json each = Json::array();
  for (const auto& client : clients) {
    all.Add(client->tally());
    each.push_back(client->Report(seconds));
  }
  Json json = ToJson(all, seconds);
  json["wall_s"] = seconds;
  json["clients"] = std::move(each);
  return json;
}

}  // namespace
}  // namespace backboned::bench

int main() {
  // As in the server: Debian's Abseil looks for deadlocks at each lock.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  backboned::bench::ServeCommands(backboned::bench::Load);
}
