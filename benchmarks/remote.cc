// bench-remote: a client of servers, by the C++ library and without LibTorch.
//
// Commands, each with "target": T:
//
//   {"do": "server"}
//   {"do": "create", "benchmark": B}       {"do": "delete", "instance": I}
//   {"do": "create", "architecture": A, "classes": C}
//   {"do": "clone", "instance": I, "count": N, "classes": C}
//   {"do": "forward", "instance": I, "shape": [N, C, H, W], "seconds": S,
//    "in_flight": K}       K threads, each with a call; or, with
//                          "one_thread": true, one that begins K calls
//   {"do": "tape", "instance": I, "shape": [N, C, H, W]}
//   {"do": "get_params", "instance": I, "seconds": S, "globs": [...]}
//   {"do": "set_params", ...}
//   {"do": "plain_get", ...}               {"do": "plain_set", ...}

#include <google/protobuf/util/time_util.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "benchmarks/command_loop.h"
#include "benchmarks/plain_client.h"
#include "client/cpp/calls.h"
#include "client/cpp/channel.h"
#include "client/cpp/client.h"
#include "client/cpp/connection.h"
#include "proto/wire/message.h"

namespace backboned::bench {
namespace {

using client::Backbone;
using client::Client;
using google::protobuf::util::TimeUtil;

template <typename T>
T Value(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

void Check(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(TimeUtil::DurationToNanoseconds(duration)) * 1e-9;
}

// The header of a forward in evaluation mode, and the input's values.
struct Input {
  v1::ForwardHeader header;
  std::vector<float> values;

  std::span<const std::byte> bytes() const {
    return std::as_bytes(std::span(values));
  }
};

Input MakeInput(const Json& command) {
  Input input;
  v1::TensorSpec& spec = *input.header.add_inputs();
  spec.set_dtype(v1::DATA_TYPE_FLOAT32);
  size_t count = 1;
  for (const int64_t size : command.at("shape").get<std::vector<int64_t>>()) {
    spec.add_shape(size);
    count *= static_cast<size_t>(size);
  }
  std::mt19937 random(0);
  std::uniform_real_distribution<float> values(-1, 1);
  for (size_t i = 0; i < count; ++i) input.values.push_back(values(random));
  return input;
}

Json Server(const Client& server) {
  const v1::GetServerResponse about = Value(server.GetServer());
  const v1::Device& device = about.devices(0);
  const v1::BatchCounters& batches = device.batches();
  return {{"version", about.version()},
          {"torch", about.torch_version()},
          {"grpc", grpc::Version()},
          {"threads", device.threads()},
          {"allocated_bytes", device.allocated_bytes()},
          {"pooled_bytes", device.pooled_bytes()},
          {"batches",
           {{"full", batches.full()},
            {"delay", batches.delay()},
            {"incompatible", batches.incompatible()},
            {"device_idle", batches.device_idle()},
            {"merged_forwards", batches.merged_forwards()},
            {"samples", batches.samples()}}}};
}

Json Create(const Client& server, const Json& command) {
  v1::CreateInstanceRequest request;
  if (command.contains("architecture")) {
    request.set_architecture(command["architecture"].get<std::string>());
    (*request.mutable_arguments())["num_classes"].set_int_value(
        command.at("classes").get<int64_t>());
    request.set_random_init(true);
  } else {
    request.set_benchmark(command.at("benchmark").get<std::string>());
  }
  request.set_seed(0);
  return {
      {"instance", Value(server.CreateInstance(request)).instance().name()}};
}

// Makes clones, or forks if the command gives a number of classes.
Json Clone(const Client& server, const Json& command) {
  v1::CloneInstanceRequest request;
  request.set_instance(command.at("instance").get<std::string>());
  if (command.contains("classes")) {
    request.set_num_classes(command["classes"].get<int64_t>());
    request.set_seed(0);
  }
  Json names = Json::array();
  for (int i = 0; i < command.at("count").get<int>(); ++i) {
    names.push_back(Value(server.CloneInstance(request)).instance().name());
  }
  return {{"instances", std::move(names)}};
}

Json Delete(const Client& server, const Json& command) {
  v1::DeleteInstanceRequest request;
  request.set_instance(command.at("instance").get<std::string>());
  Value(server.DeleteInstance(request));
  return Json::object();
}

// Returns latencies, and the server's account of the time.
Json ForwardRound(const Backbone& net, const Json& command) {
  const Input input = MakeInput(command);
  const int in_flight = command.value("in_flight", 1);
  std::mutex mutex;
  std::vector<v1::Timings> timings;
  const Round round = MeasureRound(command, in_flight, [&] {
    const auto answer = Value(net.Forward(input.header, {input.bytes()}));
    const std::lock_guard lock(mutex);
    timings.push_back(answer.result.timings());
  });
  std::vector<double> queue_s, compute_s, handler_s;
  // The round's follow those of the warm-up.
  for (size_t i = timings.size() - round.latencies_s.size(); i < timings.size();
       ++i) {
    queue_s.push_back(Seconds(timings[i].queue()));
    compute_s.push_back(Seconds(timings[i].compute()));
    handler_s.push_back(Seconds(timings[i].total()));
  }
  Json json = ToJson(round);
  json["phases"] = {
      {"queue", queue_s}, {"compute", compute_s}, {"handler", handler_s}};
  return json;
}

// Takes the answer to a forward, and drops it.
void Take(client::Calls& calls, client::Calls::Call& call) {
  wire::Message first = Value(calls.WaitForResult(call));
  v1::ForwardResult result;
  Check(first.ParseHeader(result));
  size_t count = 1;
  for (const int64_t size : result.outputs(0).shape()) {
    count *= static_cast<size_t>(size);
  }
  std::vector<float> output(count);
  Check(calls.Receive(call, std::move(first),
                      {std::as_writable_bytes(std::span(output))}));
}

// Returns the intervals between the ends of forwards, of which one thread keeps
// `in_flight` under way.
Json ForwardsOfOneThread(client::Calls& calls, const Json& command) {
  Input input = MakeInput(command);
  input.header.set_instance(command.at("instance").get<std::string>());
  const std::string header = input.header.SerializeAsString();
  std::deque<std::unique_ptr<client::Calls::Call>> under_way;
  const auto begin = [&] {
    under_way.push_back(
        calls.Begin({.field = v1::CallsRequest::kForwardFieldNumber,
                     .header = header,
                     .tensors = {input.bytes()}}));
  };
  const auto end = [&] {
    Take(calls, *under_way.front());
    under_way.pop_front();
  };
  for (int i = 1; i < command.at("in_flight").get<int>(); ++i) begin();
  const Round round = MeasureRound(command, [&] {
    begin();
    end();
  });
  while (!under_way.empty()) end();
  return ToJson(round);
}

Json Tape(const Backbone& net, const Json& command) {
  Input input = MakeInput(command);
  input.header.set_training(true);
  input.header.set_tape(true);
  const auto answer = Value(net.Forward(input.header, {input.bytes()}));
  Value(net.ReleaseTapes({answer.result.tape_id()}));
  return {{"tape_bytes", answer.result.tape_bytes()}};
}

// Moves the parameters from or to the same memory, again and again.
Json TransferRound(const Client& server, const Json& command) {
  const auto name = command.at("instance").get<std::string>();
  const auto what = command.at("do").get<std::string>();
  const Backbone net = server.backbone(name);
  v1::GetParamsRequest get;
  for (const Json& glob : command.value("globs", Json::array())) {
    get.mutable_selection()->add_globs(glob.get<std::string>());
  }
  v1::SetParamsHeader set;
  *set.mutable_selection() = get.selection();
  auto first = Value(net.GetParams(get));
  const std::span<std::byte> params = first.tensors[0];
  std::unique_ptr<PlainClient> plain;
  if (command.contains("plain_target")) {
    plain = std::make_unique<PlainClient>(
        command.at("plain_target").get<std::string>());
  }
  const Round round = MeasureRound(command, [&] {
    if (what == "get_params") {
      Value(net.GetParams(get, params));
    } else if (what == "set_params") {
      Value(net.SetParams(params, set));
    } else if (what == "plain_get") {
      plain->GetParams(name, params);
    } else {
      plain->SetParams(name, params);
    }
  });
  Json json = ToJson(round);
  json["bytes"] = params.size();
  return json;
}

// Answers the commands; keeps a connection to each server.
class Remote {
 public:
  Json Answer(const Json& command) {
    const auto what = command.at("do").get<std::string>();
    if (command.value("one_thread", false)) {
      return ForwardsOfOneThread(
          CallsTo(command.at("target").get<std::string>()), command);
    }
    const Client& server = Connected(command.at("target").get<std::string>());
    if (what == "server") return Server(server);
    if (what == "create") return Create(server, command);
    const auto name = command.at("instance").get<std::string>();
    if (what == "clone") return Clone(server, command);
    if (what == "delete") return Delete(server, command);
    if (what == "forward") return ForwardRound(server.backbone(name), command);
    if (what == "tape") return Tape(server.backbone(name), command);
    return TransferRound(server, command);
  }

 private:
  const Client& Connected(const std::string& target) {
    const auto found = clients_.find(target);
    if (found != clients_.end()) return found->second;
    // Each is one call, and the server keeps no answers.
    const client::Options once = {.retry_timeout = absl::ZeroDuration()};
    return clients_.emplace(target, Value(Client::Connect(target, once)))
        .first->second;
  }

  client::Calls& CallsTo(const std::string& target) {
    std::unique_ptr<client::Connection>& connection = connections_[target];
    if (connection == nullptr) {
      connection = std::make_unique<client::Connection>(
          client::MakeChannel(target), client::Options{}, target);
    }
    return connection->calls();
  }

  std::map<std::string, Client> clients_;
  std::map<std::string, std::unique_ptr<client::Connection>> connections_;
};

int Main() {
  Remote remote;
  ServeCommands([&](const Json& command) { return remote.Answer(command); });
  return 0;
}

}  // namespace
}  // namespace backboned::bench

int main() {
  // As in the server: Debian's Abseil looks for deadlocks at each lock.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return backboned::bench::Main();
}
