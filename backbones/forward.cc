#include "backbones/forward.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <utility>

#include "backbones/autocast.h"
#include "backbones/pass.h"

namespace backboned {
namespace {

uint64_t NextSequence() {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}

// Returns an alias of `tensor` that gradients can be taken for.
at::Tensor MakeLeaf(const at::Tensor& tensor) {
  return tensor.detach().requires_grad_(true);
}

// Makes leaves of `params` but where `mask` freezes them. Returns the leaves by
// parameter, undefined where there is none.
std::vector<at::Tensor> MakeLeaves(std::vector<at::Tensor>& params,
                                   const std::vector<bool>& mask) {
  TORCH_CHECK(mask.empty() || mask.size() == params.size(),
              "gradient mask has ", mask.size(), " values, expected ",
              params.size());
  std::vector<at::Tensor> leaves(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    if (mask.empty() || mask[i]) {
      leaves[i] = params[i] = MakeLeaf(params[i]);
    }
  }
  return leaves;
}

// Makes leaves of the inputs whose gradients are asked for, and returns these.
Inputs MakeLeaves(Inputs& inputs) {
  Inputs leaves;
  for (Input& input : inputs.all) {
    if (!input.grad) continue;
    input.tensor = MakeLeaf(input.tensor);
    leaves.all.push_back(input);
  }
  return leaves;
}

// Runs the parts that `names` need, and returns the outputs with their graph.
std::vector<at::Tensor> Run(const Architecture& architecture, Pass& pass,
                            const at::Tensor& x,
                            const std::vector<std::string>& names,
                            bool autocast) {
  const ScopedAutocast scope(autocast, x.device().type());
  const TrunkOutputs trunk = architecture.Trunk(pass, x);
  // By Architecture::output_names().
  std::vector<at::Tensor> all = {at::Tensor(), trunk.features};
  all.insert(all.end(), trunk.layers.begin(), trunk.layers.end());
  if (std::ranges::find(names, "out") != names.end()) {
    all[0] = architecture.Head(pass, trunk.features);
  }
  std::vector<at::Tensor> outputs;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(architecture.output_names(), name);
    TORCH_CHECK(found != architecture.output_names().end(), "no output ", name);
    const at::Tensor& output = all.at(
        static_cast<size_t>(found - architecture.output_names().begin()));
    outputs.push_back(scope.Result(output, x.scalar_type()));
  }
  return outputs;
}

// Returns the generator that a forward draws from.
at::Generator GeneratorOf(const State& state, const ForwardOptions& options) {
  const std::string& bytes =
      options.rng_state.empty() ? state.rng_state : options.rng_state;
  absl::StatusOr<at::Generator> generator =
      GeneratorFromState(std::as_bytes(std::span(bytes)));
  TORCH_CHECK(generator.ok(), "the generator's state is not valid");
  return *std::move(generator);
}

void CheckOutputGrads(const GraphGradients& request) {
  const std::vector<at::Tensor>& outputs = request.graph->outputs;
  TORCH_CHECK(request.output_grads.size() == outputs.size(), "got ",
              request.output_grads.size(), " output gradients, expected ",
              outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const at::Tensor& grad = request.output_grads[i];
    TORCH_CHECK(!grad.defined() || grad.sizes() == outputs[i].sizes(),
                "gradient of ", request.graph->output_names[i], " has shape ",
                grad.sizes(), ", expected ", outputs[i].sizes());
  }
}

// Returns the gradients of `leaves`, undefined where a leaf is, or where the
// outputs do not depend on it.
std::vector<at::Tensor> Differentiate(const GraphGradients& request,
                                      const std::vector<at::Tensor>& leaves,
                                      bool retain) {
  std::vector<at::Tensor> outputs;
  std::vector<at::Tensor> output_grads;
  for (size_t i = 0; i < request.output_grads.size(); ++i) {
    const at::Tensor& output = request.graph->outputs[i];
    if (request.output_grads[i].defined() && output.requires_grad()) {
      outputs.push_back(output);
      output_grads.push_back(request.output_grads[i]);
    }
  }
  std::vector<at::Tensor> inputs;
  std::ranges::copy_if(leaves, std::back_inserter(inputs),
                       &at::Tensor::defined);

  std::vector<at::Tensor> grads(leaves.size());
  if (outputs.empty() || inputs.empty()) {
    return grads;
  }
  const std::vector<at::Tensor> found =
      torch::autograd::grad(outputs, inputs, output_grads, retain,
                            /*create_graph=*/false, /*allow_unused=*/true);
  auto next = found.begin();
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (leaves[i].defined()) {
      grads[i] = next->defined() ? next->contiguous() : at::Tensor();
      ++next;
    }
  }
  return grads;
}

// Adds `grads` to `sums`, by parameter; does not change the tensors that are
// there.
void AddTo(std::vector<at::Tensor>& sums,
           const std::vector<at::Tensor>& grads) {
  sums.resize(grads.size());
  for (size_t p = 0; p < grads.size(); ++p) {
    if (sums[p].defined() && grads[p].defined()) {
      sums[p] = sums[p].add(grads[p]);
    } else if (grads[p].defined()) {
      sums[p] = grads[p];
    }
  }
}

std::vector<at::Tensor> Squares(std::vector<at::Tensor> tensors) {
  for (at::Tensor& tensor : tensors) {
    if (tensor.defined()) tensor = tensor.square();
  }
  return tensors;
}

// Returns the indices of `graphs`, the newest forward first.
std::vector<size_t> NewestFirst(std::span<const GraphGradients> graphs) {
  std::vector<size_t> order(graphs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) {
    const Graph* graph = graphs[i].graph;
    return graph == nullptr ? graphs[i].sequence : graph->sequence;
  });
  return order;
}

// Returns `values`, one for each channel, in the shape that broadcasts over `x`
// [N, C, ...].
at::Tensor PerChannel(std::span<const double> values, const at::Tensor& x) {
  TORCH_CHECK(x.dim() >= 2 && static_cast<int64_t>(values.size()) == x.size(1),
              "got ", values.size(),
              " values for the channels of an input of shape ", x.sizes());
  at::Tensor channels = at::empty({x.size(1)}, at::kFloat);
  std::ranges::transform(
      values, channels.mutable_data_ptr<float>(),
      [](double value) { return static_cast<float>(value); });
  std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
  shape[1] = x.size(1);
  return channels.view(shape).to(x.device());
}

}  // namespace

bool UsesBatchStatistics(const ForwardOptions& options) {
  if (options.batch_norm.empty()) return options.training;
  return std::ranges::any_of(options.batch_norm, [&](const auto& mode) {
    return mode.Trains(options.training);
  });
}

bool MovesBuffers(const Architecture& architecture,
                  const ForwardOptions& options) {
  if (options.batch_norm.empty()) {
    return options.training && !architecture.layout().batch_norms().empty();
  }
  return std::ranges::any_of(options.batch_norm, [&](const auto& mode) {
    return mode.Moves(options.training);
  });
}

bool Draws(const Architecture& architecture, const ForwardOptions& options) {
  return architecture.stochastic() && options.training;
}

ForwardOutput Forward(const Architecture& architecture, const State& state,
                      Inputs inputs, const ForwardOptions& options) {
  const at::AutoGradMode grad_mode(options.record);
  std::vector<at::Tensor> params = state.params;
  std::vector<at::Tensor> leaves;
  Inputs input_leaves;
  if (options.record) {
    leaves = MakeLeaves(params, options.grad_mask);
    input_leaves = MakeLeaves(inputs);
  }
  const bool draws = Draws(architecture, options);
  const at::Generator generator =
      draws ? GeneratorOf(state, options) : at::Generator();
  params.insert(params.end(), state.shared.begin(), state.shared.end());
  Pass pass(std::move(params), state.buffers,
            {.training = options.training,
             .prerelu = options.prerelu,
             .batch_norm = options.batch_norm},
            generator);
  std::vector<at::Tensor> outputs =
      Run(architecture, pass, inputs.x(), options.outputs, options.autocast);

  ForwardOutput result;
  for (const at::Tensor& output : outputs) {
    result.outputs.push_back(output.detach().contiguous());
  }
  result.buffers = pass.buffers();
  result.flops = pass.flops();
  if (draws) result.rng_state = GeneratorState(generator);
  if (options.record) {
    result.graph = std::make_shared<Graph>(
        Graph{.leaves = std::move(leaves),
              .input_leaves = std::move(input_leaves),
              .output_names = options.outputs,
              .outputs = std::move(outputs),
              .sequence = options.sequence ? *options.sequence : NextSequence(),
              .flops = result.flops});
  }
  return result;
}

BackwardOutput Backward(std::span<const GraphGradients> graphs, bool retain,
                        bool want_input_grads, ParamGrads want) {
  for (const GraphGradients& request : graphs) {
    if (request.graph != nullptr) CheckOutputGrads(request);
  }
  const at::NoGradGuard no_grad;
  BackwardOutput result;
  result.input_grads.resize(graphs.size());
  if (want.each) result.graph_grads.resize(graphs.size());
  for (const size_t i : NewestFirst(graphs)) {
    GraphGradients request = graphs[i];
    const std::shared_ptr<Graph> made =
        request.graph == nullptr ? request.make() : nullptr;
    if (made != nullptr) {
      request.graph = made.get();
      CheckOutputGrads(request);
    }
    result.flops += request.graph->flops.backward;
    if (made != nullptr) result.flops += made->flops.forward;
    std::vector<at::Tensor> leaves = request.graph->leaves;
    const Inputs inputs =
        want_input_grads ? request.graph->input_leaves : Inputs();
    for (const Input& input : inputs.all) leaves.push_back(input.tensor);
    std::vector<at::Tensor> grads = Differentiate(request, leaves, retain);
    size_t next = request.graph->leaves.size();
    result.input_grads[i] =
        inputs.Map([&](const at::Tensor& /*leaf*/) { return grads[next++]; });
    grads.resize(request.graph->leaves.size());
    if (want.sum) AddTo(result.grads, grads);
    if (want.squares) AddTo(result.squared_grads, Squares(grads));
    if (want.each) result.graph_grads[i] = std::move(grads);
  }
  return result;
}

at::Tensor PrepareInput(const at::Tensor& x, std::span<const double> mean,
                        std::span<const double> std, at::ScalarType dtype) {
  if (c10::isFloatingType(x.scalar_type())) return x.to(dtype);
  TORCH_CHECK(x.scalar_type() == at::kByte, "input has dtype ", x.scalar_type(),
              ", expected uint8 or a floating-point type");
  at::Tensor scaled = x.to(at::kFloat).div(255);
  if (!mean.empty()) {
    scaled = scaled.sub(PerChannel(mean, x));
  }
  if (!std.empty()) scaled = scaled.div(PerChannel(std, x));
  return scaled.to(dtype);
}

}  // namespace backboned
