// Runs forwards, recorded forwards, and their vector-Jacobian products.
//
// These functions compute: call them on the device's worker. They hold no lock
// and know nothing of instances. They throw c10::Error where LibTorch fails;
// input that Architecture's checks accept does not make it fail.

#ifndef BACKBONED_BACKBONES_FORWARD_H_
#define BACKBONED_BACKBONES_FORWARD_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/batch_norm.h"
#include "backbones/flops.h"
#include "backbones/inputs.h"
#include "backbones/state.h"

namespace backboned {

struct ForwardOptions {
  // The outputs, in this order; Architecture::CheckOutputs accepts them.
  std::vector<std::string> outputs = {"out"};
  bool training = false;
  // Returns the stages as they are before their ReLU. Needs has_prerelu().
  bool prerelu = false;
  // The CPU generator's state from which a stochastic architecture draws in
  // training. Empty: the State's.
  std::string rng_state = {};
  // The modes of the BatchNorm layers, from ResolveBatchNorm. Empty: the
  // default.
  std::vector<BatchNormMode> batch_norm = {};
  // Computes in bfloat16 where PyTorch's autocast does. The outputs are of the
  // State's dtype all the same.
  bool autocast = false;
  // Keeps the graph for Backward.
  bool record = false;
  // With `record`: whether each parameter gets gradients. Empty: all do.
  std::vector<bool> grad_mask = {};
  // With `record`: the place among all recorded forwards. Absent: after all
  // that this process has recorded.
  std::optional<uint64_t> sequence = {};
};

// Returns whether a BatchNorm layer of a forward, if there is one, uses the
// statistics of its batch: then the input must be valid for training.
bool UsesBatchStatistics(const ForwardOptions& options);

// Returns whether a forward updates BatchNorm buffers.
bool MovesBuffers(const Architecture& architecture,
                  const ForwardOptions& options);

// Returns whether a forward draws random numbers.
bool Draws(const Architecture& architecture, const ForwardOptions& options);

// A recorded forward. Keeps its parameters and buffers alive, so that its
// backward is exact whatever becomes of the instance.
//
// Not thread-safe; a backward without `retain` uses it up.
struct Graph {
  // By parameter: an alias of its tensor, or undefined if it is frozen.
  std::vector<at::Tensor> leaves;
  // Aliases of the inputs whose gradients were asked for.
  Inputs input_leaves;
  // The outputs' names, and the outputs with their graph, in the requested
  // order.
  std::vector<std::string> output_names;
  std::vector<at::Tensor> outputs;
  // Later forwards have higher numbers.
  uint64_t sequence = 0;
  // Of its forward, and of a backward of all outputs.
  Flops flops;
};

struct ForwardOutput {
  // Detached and contiguous, in the requested order.
  std::vector<at::Tensor> outputs;
  // After the forward; the State's own where no layer updated them.
  std::vector<at::Tensor> buffers;
  // The generator's after the forward. Empty: no layer could draw.
  std::string rng_state;
  // Present if recorded.
  std::shared_ptr<Graph> graph;
  // Of the forward, and of its graph's backward.
  Flops flops;
};

// Runs `architecture` with the parameters and buffers of `state` on `inputs`,
// which have the State's dtype and device and shapes that CheckInput accepts.
// Skips the head unless `out` is asked for. Does not change `state`; if the
// forward is recorded, `inputs` must not change either.
ForwardOutput Forward(const Architecture& architecture, const State& state,
                      Inputs inputs, const ForwardOptions& options);

// A recorded forward and the gradients of its outputs.
struct GraphGradients {
  // Null: `make` makes it.
  const Graph* graph = nullptr;
  // By output of the graph, of its shape; undefined: none, which is not zero.
  std::vector<at::Tensor> output_grads = {};
  // Makes the graph, with this sequence, at its turn. The graph is destroyed
  // before the next one is made.
  std::function<std::shared_ptr<Graph>()> make = {};
  uint64_t sequence = 0;
};

// The parameters' gradients that a backward returns.
struct ParamGrads {
  bool sum = true;
  bool each = false;
  bool squares = false;
};

struct BackwardOutput {
  // By parameter: the sum over the graphs, if wanted, contiguous; undefined:
  // none.
  std::vector<at::Tensor> grads;
  // By graph, in the order of the request, and by parameter, if wanted.
  std::vector<std::vector<at::Tensor>> graph_grads;
  // By parameter: the sum over the graphs of the gradients' squares, if wanted.
  std::vector<at::Tensor> squared_grads;
  // By graph, in the order of the request: those of its input leaves, if
  // wanted; undefined: none.
  std::vector<Inputs> input_grads;
  // Operations of the backwards of all graphs, and of the forwards that made
  // some of them.
  int64_t flops = 0;
};

// Computes the products of all `graphs`, of one architecture, and sums the
// parameters' gradients, the newest forward first, as PyTorch's backward()
// does. Without `retain` the graphs are used up, even if this throws after it
// began.
//
// Throws c10::Error, before it begins with the graph, if a gradient's shape is
// not its output's. Exceptions of `make` pass through.
BackwardOutput Backward(std::span<const GraphGradients> graphs, bool retain,
                        bool want_input_grads, ParamGrads want = {});

// Computes the network's input of `x` [N, C, ...] in `dtype`. uint8 becomes `x
// / 255` in float32, then, unless `mean` and `std` are empty, `(x - mean) /
// std` for each channel, and is converted. Floating-point `x` is only
// converted. Throws c10::Error for other dtypes.
at::Tensor PrepareInput(const at::Tensor& x, std::span<const double> mean,
                        std::span<const double> std,
                        at::ScalarType dtype = at::kFloat);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_FORWARD_H_
