#include "server/compute/forward_replay.h"

#include <utility>

#include "server/compute/forward_run.h"

namespace backboned {

ForwardReplay::ForwardReplay(std::shared_ptr<Instance> instance,
                             const State& state, Inputs inputs,
                             ForwardOptions options)
    : instance_(std::move(instance)),
      state_({.params = state.params,
              .buffers = state.buffers,
              .shared = state.shared}),
      inputs_(std::move(inputs)),
      options_(std::move(options)) {
  if (!Draws(instance_->architecture(), options_)) {
    options_.rng_state.clear();
  } else if (options_.rng_state.empty()) {
    options_.rng_state = state.rng_state;
  }
}

std::shared_ptr<Graph> ForwardReplay::Run() const {
  ForwardOutput output =
      Forward(instance_->architecture(), state_,
              PrepareInputs(*instance_, state_, inputs_), options_);
  ++instance_->counters().replayed_forwards;
  return std::move(output.graph);
}

int64_t ForwardReplay::bytes() const {
  int64_t bytes =
      inputs_.bytes() + static_cast<int64_t>(options_.rng_state.size());
  ForEachStateTensor([&bytes](const at::Tensor& tensor) {
    if (tensor.use_count() > 1) return;  // Held elsewhere too.
    bytes += static_cast<int64_t>(tensor.nbytes());
  });
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
