#include "server/compute/forward_replay.h"

#include <utility>

#include "server/device/host_view.h"

namespace backboned {

ForwardReplay::ForwardReplay(std::shared_ptr<Instance> instance,
                             const State& state, at::Tensor input,
                             ForwardOptions options)
    : instance_(std::move(instance)),
      state_({.params = state.params,
              .buffers = state.buffers,
              .shared = state.shared}),
      input_(std::move(input)),
      options_(std::move(options)) {
  if (!Draws(instance_->architecture(), options_)) {
    options_.rng_state.clear();
  } else if (options_.rng_state.empty()) {
    options_.rng_state = state.rng_state;
  }
}

std::shared_ptr<Graph> ForwardReplay::Run() const {
  const Normalization& normalization = instance_->identity().normalization;
  const at::Tensor x =
      PrepareInput(OnDevice(input_, instance_->worker().device()),
                   normalization.mean, normalization.std, DtypeOf(state_));
  ForwardOutput output =
      Forward(instance_->architecture(), state_, x, options_);
  ++instance_->counters().replayed_forwards;
  return std::move(output.graph);
}

int64_t ForwardReplay::bytes() const {
  auto bytes =
      static_cast<int64_t>(input_.nbytes() + options_.rng_state.size());
  for (const auto* tensors : {&state_.params, &state_.buffers}) {
    for (const at::Tensor& tensor : *tensors) {
      if (tensor.use_count() > 1) continue;  // Held elsewhere too.
      bytes += static_cast<int64_t>(tensor.nbytes());
    }
  }
  return bytes;
}

void ForwardReplay::ForEachStateTensor(
    absl::FunctionRef<void(const at::Tensor&)> visit) const {
  for (const at::Tensor& tensor : state_.params) visit(tensor);
  for (const at::Tensor& tensor : state_.buffers) visit(tensor);
}

void ForwardReplay::CountDemotion() const {
  ++instance_->counters().demoted_tapes;
}

}  // namespace backboned
