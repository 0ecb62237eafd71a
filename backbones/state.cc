#include "backbones/state.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <cstring>
#include <string>
#include <utility>

#include "backbones/errors.h"

namespace backboned {
namespace {

void ApplyStep(const InitStep& step, std::span<at::Tensor> params,
               const at::Generator& generator) {
  at::Tensor& param = params[step.parameter];
  if (const auto* uniform = std::get_if<UniformDraw>(&step.rule)) {
    param.uniform_(uniform->low, uniform->high, generator);
  } else {
    param.fill_(std::get<ConstantFill>(step.rule).value);
  }
}

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
    ApplyStep(step, state.params, generator);
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

int64_t StateBytes(const State& state) {
  int64_t bytes = 0;
  for (const auto* tensors : {&state.params, &state.buffers, &state.grads}) {
    for (const at::Tensor& tensor : *tensors) {
      bytes += tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
    }
  }
  return bytes;
}

}  // namespace backboned
