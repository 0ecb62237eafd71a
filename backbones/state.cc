#include "backbones/state.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "backbones/errors.h"
#include "backbones/optimizer.h"

namespace backboned {
namespace {

// Applies a rule to a parameter, by the same ATen calls as torch.nn.init.
class Initializer {
 public:
  Initializer(at::Tensor param, at::Generator generator)
      : param_(std::move(param)), generator_(std::move(generator)) {}

  void operator()(const UniformDraw& draw) {
    param_.uniform_(draw.low, draw.high, generator_);
  }

  void operator()(const NormalDraw& draw) {
    param_.normal_(draw.mean, draw.std, generator_);
  }

  // By the inverse of the distribution function.
  void operator()(const TruncatedNormalDraw& draw) {
    const double low = NormalCdf((draw.low - draw.mean) / draw.std);
    const double high = NormalCdf((draw.high - draw.mean) / draw.std);
    param_.uniform_(2 * low - 1, 2 * high - 1, generator_);
    param_.erfinv_();
    param_.mul_(draw.std * std::sqrt(2.0));
    param_.add_(draw.mean);
    param_.clamp_(draw.low, draw.high);
  }

  void operator()(const ConstantFill& fill) { param_.fill_(fill.value); }

 private:
  static double NormalCdf(double x) {
    return (1 + std::erf(x / std::sqrt(2.0))) / 2;
  }

  at::Tensor param_;
  at::Generator generator_;
};

at::Tensor Part(const at::Tensor& tensor, const Slice& slice) {
  return tensor.view({-1}).narrow(0, slice.begin, slice.elements());
}

// Returns `tensors` with `values` in the places of `slices`.
std::vector<at::Tensor> Replace(const std::vector<at::Tensor>& tensors,
                                std::span<const Slice> slices,
                                std::span<const at::Tensor> values) {
  std::vector<at::Tensor> replaced = tensors;
  for (size_t i = 0; i < slices.size(); ++i) {
    at::Tensor& target = replaced[slices[i].index];
    if (slices[i].whole) {
      target = values[i].to(target.device());
    } else {
      target = target.clone();
      Part(target, slices[i]).copy_(values[i]);
    }
  }
  return replaced;
}

}  // namespace

at::Generator SeededGenerator(uint64_t seed) {
  return at::detail::createCPUGenerator(seed);
}

absl::StatusOr<at::Generator> GeneratorFromState(
    std::span<const std::byte> bytes) {
  const auto invalid = [](const std::string& message) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kInvalidOption,
                 message);
  };
  if (bytes.size() != kGeneratorStateBytes) {
    return invalid("generator state has " + std::to_string(bytes.size()) +
                   " bytes, expected " + std::to_string(kGeneratorStateBytes));
  }
  at::Tensor state = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
  std::memcpy(state.mutable_data_ptr(), bytes.data(), bytes.size());
  at::Generator generator = at::detail::createCPUGenerator();
  try {
    generator.set_state(state);
  } catch (const c10::Error&) {
    return invalid("generator state is not one of a CPU generator");
  }
  return generator;
}

std::string GeneratorState(const at::Generator& generator) {
  const at::Tensor state = generator.get_state();
  return std::string(static_cast<const char*>(state.const_data_ptr()),
                     state.nbytes());
}

StatePtr InitialState(const Layout& layout, const at::Generator& generator,
                      at::Device device) {
  State state;
  for (const Parameter& parameter : layout.parameters()) {
    state.params.push_back(at::empty(parameter.shape, at::kFloat));
  }
  for (const InitStep& step : layout.init_steps()) {
    std::visit(Initializer(state.params[step.parameter], generator), step.rule);
  }
  for (at::Tensor& param : state.params) {
    param = param.to(device);
  }
  for (const Buffer& buffer : layout.buffers()) {
    state.buffers.push_back(
        at::full(buffer.shape, buffer.initial,
                 at::TensorOptions().dtype(buffer.dtype).device(device)));
  }
  state.grads.resize(state.params.size());
  state.rng_state = GeneratorState(generator);
  return std::make_shared<const State>(std::move(state));
}

std::vector<at::Tensor> FreshTensors(std::span<const at::Tensor> tensors,
                                     std::span<const Slice> slices) {
  std::vector<at::Tensor> fresh;
  fresh.reserve(slices.size());
  for (const Slice& slice : slices) {
    const at::Tensor& tensor = tensors[slice.index];
    const std::vector<int64_t> part = {slice.elements()};
    fresh.push_back(
        at::empty(slice.whole ? tensor.sizes() : at::IntArrayRef(part),
                  tensor.scalar_type()));
  }
  return fresh;
}

std::vector<at::Tensor> SliceTensors(std::span<const at::Tensor> tensors,
                                     std::span<const Slice> slices) {
  std::vector<at::Tensor> parts;
  parts.reserve(slices.size());
  for (const Slice& slice : slices) {
    const at::Tensor& tensor = tensors[slice.index];
    parts.push_back(tensor.defined() ? Part(tensor, slice) : at::Tensor());
  }
  return parts;
}

StatePtr WithParams(const State& state, std::span<const Slice> slices,
                    std::span<const at::Tensor> values) {
  State next = state;
  next.params = Replace(state.params, slices, values);
  ++next.params_version;
  return std::make_shared<const State>(std::move(next));
}

StatePtr WithBuffers(const State& state, std::span<const Slice> slices,
                     std::span<const at::Tensor> values) {
  return WithBuffers(state, Replace(state.buffers, slices, values));
}

StatePtr WithBuffers(const State& state, std::vector<at::Tensor> buffers) {
  State next = state;
  next.buffers = std::move(buffers);
  ++next.buffers_version;
  return std::make_shared<const State>(std::move(next));
}

StatePtr WithRngState(const State& state, std::string rng_state) {
  State next = state;
  next.rng_state = std::move(rng_state);
  return std::make_shared<const State>(std::move(next));
}

StatePtr WithGrads(const State& state, std::span<const Slice> slices,
                   std::span<const at::Tensor> values) {
  State next = state;
  for (size_t i = 0; i < slices.size(); ++i) {
    const size_t index = slices[i].index;
    next.grads[index] = values[i].defined()
                            ? values[i].to(state.params[index].device())
                            : at::Tensor();
  }
  return std::make_shared<const State>(std::move(next));
}

StatePtr WithAddedGrads(const State& state, std::span<const at::Tensor> grads) {
  State next = state;
  for (size_t i = 0; i < grads.size(); ++i) {
    at::Tensor& sum = next.grads[i];
    if (sum.defined() && grads[i].defined()) {
      sum = sum.add(grads[i]);
    } else if (grads[i].defined()) {
      sum = grads[i];
    }
  }
  return std::make_shared<const State>(std::move(next));
}

StatePtr CloneOf(const State& state, const CloneParts& parts) {
  State clone = state;
  clone.params_version = 1;
  clone.buffers_version = 1;
  if (!parts.grads) clone.grads.assign(clone.params.size(), at::Tensor());
  if (!parts.optimizer) clone.optimizer = nullptr;
  return std::make_shared<const State>(std::move(clone));
}

absl::StatusOr<StatePtr> ForkOf(const State& state, const Layout& layout,
                                const State& fresh) {
  State fork = *CloneOf(state, {});
  const std::vector<Parameter>& parameters = layout.parameters();
  bool fits = parameters.size() == fork.params.size() &&
              layout.buffers().size() == fork.buffers.size();
  bool has_head = false;
  for (size_t i = 0; fits && i < parameters.size(); ++i) {
    if (parameters[i].head) {
      fork.params[i] = fresh.params[i];
      has_head = true;
    }
    fits = fork.params[i].sizes() == at::IntArrayRef(parameters[i].shape);
  }
  if (!fits || !has_head) {
    return InvalidOption(has_head
                             ? "the architecture changes more than its head "
                               "with the number of classes"
                             : "the architecture declares no head of its own");
  }
  return std::make_shared<const State>(std::move(fork));
}

std::vector<at::Tensor> TensorsOf(const State& state) {
  std::vector<at::Tensor> all;
  for (const auto* tensors : {&state.params, &state.buffers, &state.grads}) {
    for (const at::Tensor& tensor : *tensors) {
      if (tensor.defined()) all.push_back(tensor);
    }
  }
  return all;
}

int64_t StateBytes(const State& state) {
  int64_t bytes =
      state.optimizer == nullptr ? 0 : OptimizerBytes(*state.optimizer);
  for (const at::Tensor& tensor : TensorsOf(state)) {
    bytes += static_cast<int64_t>(tensor.nbytes());
  }
  return bytes;
}

}  // namespace backboned
