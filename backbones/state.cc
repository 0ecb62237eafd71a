#include "backbones/state.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "backbones/dtypes.h"
#include "base/errors.h"

namespace backboned {
namespace {

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
      target = values[i].to(target.device(), target.scalar_type());
    } else {
      target = target.clone();
      Part(target, slices[i]).copy_(values[i]);
    }
  }
  return replaced;
}

// Returns the index of the entry with this name.
template <typename Entry>
size_t IndexOf(const std::vector<Entry>& entries, const std::string& name) {
  const auto found = std::ranges::find(entries, name, &Entry::name);
  TORCH_CHECK(found != entries.end(), "an earlier column has no ", name);
  return static_cast<size_t>(found - entries.begin());
}

}  // namespace

at::ScalarType DtypeOf(const State& state) {
  return state.params.empty() ? at::kFloat : state.params[0].scalar_type();
}

at::Generator SeededGenerator(uint64_t seed) {
  return at::detail::createCPUGenerator(seed);
}

absl::StatusOr<at::Generator> GeneratorFromState(
    std::span<const std::byte> bytes) {
  const auto invalid = [](const std::string& message) {
    return InvalidOption(message);
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

StatePtr WithColumns(const State& state, const Layout& layout,
                     std::span<const Column> columns) {
  State next = state;
  next.shared.clear();
  for (const SharedTensor& shared : layout.shared()) {
    const Column& column = columns[shared.origin.column];
    next.shared.push_back(column.state->params[IndexOf(
        column.layout->parameters(), shared.origin.name)]);
  }
  for (size_t i = 0; i < layout.buffers().size(); ++i) {
    const std::optional<Origin>& origin = layout.buffers()[i].origin;
    if (!origin.has_value()) continue;
    const Column& column = columns[origin->column];
    next.buffers[i] =
        column.state->buffers[IndexOf(column.layout->buffers(), origin->name)];
  }
  return std::make_shared<const State>(std::move(next));
}

std::vector<at::Tensor> FreshTensors(std::span<const at::Tensor> tensors,
                                     std::span<const Slice> slices,
                                     std::optional<at::ScalarType> dtype) {
  std::vector<at::Tensor> fresh;
  fresh.reserve(slices.size());
  for (const Slice& slice : slices) {
    const at::Tensor& tensor = tensors[slice.index];
    const std::vector<int64_t> part = {slice.elements()};
    const at::ScalarType stored = tensor.scalar_type();
    fresh.push_back(at::empty(
        slice.whole ? tensor.sizes() : at::IntArrayRef(part),
        c10::isFloatingType(stored) ? dtype.value_or(stored) : stored));
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
  next.grads_changes = 0;
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
  next.grads_changes = 0;
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
    const at::Tensor& param = state.params[index];
    next.grads[index] = values[i].defined()
                            ? values[i].to(param.device(), param.scalar_type())
                            : at::Tensor();
  }
  ++next.grads_changes;
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
  ++next.grads_changes;
  return std::make_shared<const State>(std::move(next));
}

StatePtr CloneOf(const State& state, const CloneParts& parts) {
  State clone = state;
  clone.params_version = 1;
  clone.buffers_version = 1;
  clone.grads_changes = 0;
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
    return InvalidOption(
        has_head ? "cannot fork: other parameters than the head's depend on "
                   "num_classes"
                 : "cannot fork: the architecture has no separate head");
  }
  return std::make_shared<const State>(std::move(fork));
}

void ForEachTensor(const State& state,
                   absl::FunctionRef<void(const at::Tensor&)> visit) {
  const auto visit_all = [&visit](const std::vector<at::Tensor>& tensors) {
    for (const at::Tensor& tensor : tensors) {
      if (tensor.defined()) visit(tensor);
    }
  };
  visit_all(state.params);
  visit_all(state.buffers);
  visit_all(state.grads);
  visit_all(state.shared);
  if (state.optimizer == nullptr) return;
  for (const std::vector<at::Tensor>& slots : state.optimizer->slots) {
    visit_all(slots);
  }
}

State MetaState(const Layout& layout, at::ScalarType dtype,
                const OptimizerPtr& optimizer) {
  const auto meta = [](const std::vector<int64_t>& shape, at::ScalarType type) {
    return at::empty(shape, at::TensorOptions(type).device(at::kMeta));
  };
  State state;
  for (const Parameter& parameter : layout.parameters()) {
    state.params.push_back(meta(parameter.shape, dtype));
  }
  for (const Buffer& buffer : layout.buffers()) {
    state.buffers.push_back(
        meta(buffer.shape, StoredDtype(buffer.dtype, dtype)));
  }
  for (const SharedTensor& shared : layout.shared()) {
    state.shared.push_back(meta(shared.shape, dtype));
  }
  state.grads.resize(state.params.size());
  if (optimizer == nullptr) return state;
  OptimizerState bare = *optimizer;
  bare.slots.assign(state.params.size(), {});
  state.optimizer = std::make_shared<const OptimizerState>(std::move(bare));
  return state;
}

bool IsMeta(const State& state) { return state.params.front().is_meta(); }

int64_t StateBytes(const State& state) {
  int64_t bytes = 0;
  ForEachTensor(state, [&bytes](const at::Tensor& tensor) {
    bytes += static_cast<int64_t>(tensor.nbytes());
  });
  return bytes;
}

}  // namespace backboned
