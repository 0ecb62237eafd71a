// bench-local THREADS main|worker: runs networks inside this process, computed
// as the server does, but without a server.
//
// One thread does all of LibTorch's work: this program's first one, or, as in
// the server, one that does nothing else. Memory is LibTorch's own choice.
// Commands:
//
//   {"do": "forward", "benchmark": B, "batch": N, "seconds": S}
//   {"do": "gradients", "benchmark": B, "batch": N, "seconds": S}

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones_like.h>

#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/architectures.h"
#include "backbones/benchmarks.h"
#include "backbones/forward.h"
#include "backbones/initial_draw.h"
#include "benchmarks/command_loop.h"

namespace backboned::bench {
namespace {

template <typename T>
T Value(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

// A network in this process.
struct Network {
  std::shared_ptr<const Architecture> architecture;
  StatePtr state;
  std::vector<int64_t> input_shape;  // C H W.
};

Network MakeNetwork(const std::string& name) {
  const Benchmark* benchmark = Value(FindBenchmark(name));
  Network network = {.architecture = Value(BuildArchitecture(
                         benchmark->architecture, benchmark->arguments)),
                     .input_shape = benchmark->input_shape};
  network.state = InitialState(network.architecture->layout(),
                               SeededGenerator(0), at::kCPU);
  return network;
}

// Returns values between -1 and 1, [N, C, H, W].
at::Tensor MakeInput(const Network& network, int64_t batch) {
  std::vector<int64_t> shape = network.input_shape;
  shape.insert(shape.begin(), batch);
  at::Tensor x = at::empty(shape, at::kFloat);
  std::mt19937 random(0);
  std::uniform_real_distribution<float> values(-1, 1);
  float* data = x.mutable_data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) data[i] = values(random);
  return x;
}

// Computes a forward in training, and the gradients of its logits' sum.
void ComputeGradients(const Network& network, const at::Tensor& x) {
  const ForwardOutput forward = Forward(*network.architecture, *network.state,
                                        x, {.training = true, .record = true});
  const GraphGradients request = {
      .graph = forward.graph.get(),
      .output_grads = {at::ones_like(forward.outputs[0])}};
  Backward({&request, 1}, /*retain=*/false, /*want_input_grads=*/false);
}

// Answers the commands.
class Local {
 public:
  Json Answer(const Json& command) {
    const auto what = command.at("do").get<std::string>();
    if (what != "forward" && what != "gradients") {
      throw std::runtime_error("unknown command " + command.dump());
    }
    const auto name = command.at("benchmark").get<std::string>();
    if (!networks_.contains(name)) networks_[name] = MakeNetwork(name);
    const Network& network = networks_[name];
    const at::Tensor x = MakeInput(network, command.at("batch").get<int64_t>());
    return ToJson(MeasureRound(command, [&] {
      if (what == "gradients") {
        ComputeGradients(network, x);
      } else {
        Forward(*network.architecture, *network.state, x, ForwardOptions());
      }
    }));
  }

 private:
  std::map<std::string, Network> networks_;
};

int Main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: bench-local THREADS main|worker\n";
    return 2;
  }
  const int threads = std::stoi(argv[1]);
  const auto serve = [threads] {
    at::set_num_threads(threads);
    Local local;
    ServeCommands([&](const Json& command) { return local.Answer(command); });
  };
  if (std::string(argv[2]) == "worker") {
    std::thread(serve).join();
  } else {
    serve();
  }
  return 0;
}

}  // namespace
}  // namespace backboned::bench

int main(int argc, char** argv) { return backboned::bench::Main(argc, argv); }
