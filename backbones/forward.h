// The engine: forwards, recorded forwards, and their vector-Jacobian products.
//
// These functions compute: they belong on the device's worker, hold no lock and
// know nothing of instances. They throw c10::Error where LibTorch fails; input
// that Architecture's checks accept does not make it fail.

#ifndef BACKBONED_BACKBONES_FORWARD_H_
#define BACKBONED_BACKBONES_FORWARD_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/batch_norm.h"
#include "backbones/state.h"

namespace backboned {

struct ForwardOptions {
  // What to return, in this order; Architecture::CheckOutputs accepts it.
  std::vector<std::string> outputs = {"out"};
  bool training = false;
  // Give the stages as they are before their ReLU. Needs has_prerelu().
  bool prerelu = false;
  // What a stochastic architecture draws from in training: a CPU generator's
  // state. Empty: the State's.
  std::string rng_state = {};
  // How BatchNorm layers run, as ResolveBatchNorm gives it. Empty: as by
  // default.
  std::vector<BatchNormMode> batch_norm = {};
  // Keep the graph for Backward.
  bool record = false;
  // With `record`: Backward may ask for the input's gradient.
  bool input_grad = false;
  // With `record`: which parameters get gradients, one value each. Empty: all.
  std::vector<bool> grad_mask = {};
  // With `record`: the place among all recorded forwards. Absent: after all
  // that this process recorded.
  std::optional<uint64_t> sequence = {};
};

// Whether a BatchNorm layer of a forward, if there is one, uses the statistics
// of its batch: then the input has to be one for training.
bool UsesBatchStatistics(const ForwardOptions& options);

// Whether a forward moves BatchNorm buffers on.
bool MovesBuffers(const Architecture& architecture,
                  const ForwardOptions& options);

// Whether a forward draws random numbers.
bool Draws(const Architecture& architecture, const ForwardOptions& options);

// A recorded forward. It keeps its own parameters and buffers alive, so that
// its backward is exact whatever becomes of the instance.
//
// Not thread-safe; a backward without `retain` uses it up.
class Graph {
 public:
  // The leaves are what gradients are taken for; undefined ones get none.
  Graph(std::vector<at::Tensor> leaves, at::Tensor input_leaf,
        std::vector<std::string> names, std::vector<at::Tensor> outputs,
        uint64_t sequence);

  // The outputs' names, and the outputs with their graph, in the order asked
  // for.
  const std::vector<std::string>& output_names() const { return output_names_; }
  const std::vector<at::Tensor>& outputs() const { return outputs_; }

  // One a parameter: an alias of its tensor, or undefined if it is frozen.
  const std::vector<at::Tensor>& leaves() const { return leaves_; }

  // An alias of the input, or undefined if its gradient was not asked for.
  const at::Tensor& input_leaf() const { return input_leaf_; }

  // Later forwards have higher numbers.
  uint64_t sequence() const { return sequence_; }

 private:
  std::vector<at::Tensor> leaves_;
  at::Tensor input_leaf_;
  std::vector<std::string> output_names_;
  std::vector<at::Tensor> outputs_;
  uint64_t sequence_;
};

struct ForwardOutput {
  // Detached and contiguous, in the order asked for.
  std::vector<at::Tensor> outputs;
  // After the forward; the State's own where no layer moved them.
  std::vector<at::Tensor> buffers;
  // The generator's after the forward. Empty: nothing could be drawn.
  std::string rng_state;
  // If recorded.
  std::shared_ptr<Graph> graph;
};

// Runs `architecture` with the parameters and buffers of `state` on `x`, of the
// State's dtype and device and a shape that CheckInput accepts. The head
// is skipped unless `out` is asked for. `state` stays as it is; so must `x`, if
// recorded.
ForwardOutput Forward(const Architecture& architecture, const State& state,
                      const at::Tensor& x, const ForwardOptions& options);

// A recorded forward and the gradients of its outputs.
struct GraphGradients {
  // Null: `make` gives it.
  const Graph* graph = nullptr;
  // By the graph's outputs, of their shape; undefined: none, which is not zero.
  std::vector<at::Tensor> output_grads = {};
  // Makes the graph, with this sequence, when its turn has come. It is gone
  // before the next one's.
  std::function<std::shared_ptr<Graph>()> make = {};
  uint64_t sequence = 0;
};

// Which gradients of the parameters a backward gives.
struct ParamGrads {
  bool sum = true;
  bool each = false;
  bool squares = false;
};

struct BackwardOutput {
  // The sum over the graphs, if wanted: one a parameter, contiguous; undefined:
  // none.
  std::vector<at::Tensor> grads;
  // Each graph's own, if wanted, in the order of the request.
  std::vector<std::vector<at::Tensor>> graph_grads;
  // The sum over the graphs of each one's squares, if wanted.
  std::vector<at::Tensor> squared_grads;
  // One a graph, in the order of the request; undefined: none.
  std::vector<at::Tensor> input_grads;
};

// Computes the products of all `graphs`, of one architecture, and sums the
// parameters' gradients, the newest forward first, as PyTorch's backward()
// does. Without `retain` the graphs are used up, also if it throws after it
// began.
//
// Throws c10::Error, before it begins with the graph, if a gradient has not its
// output's shape; what `make` throws passes through.
BackwardOutput Backward(std::span<const GraphGradients> graphs, bool retain,
                        bool want_input_grads, ParamGrads want = {});

// Computes the network's input of `x` [N, C, ...] in `dtype`: uint8 becomes `x
// / 255` in float32 and then, unless they are empty, `(x - mean) / std` for
// each channel, and is converted then; floating-point `x` is converted only.
// Throws c10::Error for other dtypes.
at::Tensor PrepareInput(const at::Tensor& x, std::span<const double> mean,
                        std::span<const double> std,
                        at::ScalarType dtype = at::kFloat);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_FORWARD_H_
