#include "server/compute/forward_run.h"

#include <utility>

#include "server/compute/recording.h"
#include "server/device/host_view.h"

namespace backboned {
namespace {

// Divides each row by its Euclidean norm, at least 1e-12.
at::Tensor NormalizeRows(const at::Tensor& rows) {
  const at::Tensor flat = rows.flatten(1);
  return flat.div(flat.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12))
      .view(rows.sizes());
}

}  // namespace

bool ChangesInstance(const ForwardWork& work) {
  const Architecture& architecture = work.instance->architecture();
  return (work.buffers.empty() && MovesBuffers(architecture, work.options)) ||
         (work.options.rng_state.empty() && Draws(architecture, work.options));
}

absl::Status TakeState(ForwardWork& work, StatePtr& used) {
  used = work.instance->state();
  if (work.grads_of_trained) {
    work.options.grad_mask = work.instance->trained();
  }
  return work.instance->CheckVersion(work.condition, *used);
}

StatePtr StateToRun(const ForwardWork& work, const StatePtr& used) {
  if (work.buffers.empty()) return used;
  State state = {.params = used->params,
                 .shared = used->shared,
                 .rng_state = used->rng_state};
  for (size_t i = 0; i < work.buffers.size(); ++i) {
    state.buffers.push_back(
        OnDevice(work.buffers[i], work.instance->worker().device())
            .to(used->buffers[i].scalar_type()));
  }
  return std::make_shared<const State>(std::move(state));
}

Inputs PrepareInputs(const Instance& instance, const State& state,
                     const Inputs& inputs) {
  const Normalization& normalization = instance.identity().normalization;
  return inputs.Map([&](const at::Tensor& input) {
    return PrepareInput(OnDevice(input, instance.worker().device()),
                        normalization.mean, normalization.std, DtypeOf(state));
  });
}

std::vector<at::Tensor> FinishOutputs(const ForwardWork& work,
                                      std::vector<at::Tensor> outputs) {
  for (at::Tensor& rows : outputs) {
    if (work.l2_normalize) rows = NormalizeRows(rows);
    if (work.output_dtype) rows = rows.to(*work.output_dtype);
  }
  return outputs;
}

std::vector<at::Tensor> DeliverOutputs(const ForwardWork& work,
                                       std::vector<at::Tensor> outputs) {
  return AllOnHost(FinishOutputs(work, std::move(outputs)));
}

ForwardOutput ComputeForward(ForwardWork& work, const State& state) {
  Inputs inputs = PrepareInputs(*work.instance, state, work.inputs);
  // A tape needs them, and a second try on a GPU.
  if (!work.options.record && work.instance->worker().device().is_cpu()) {
    work.inputs = {};
  }
  return Evaluate(*work.instance, state, std::move(inputs), work.options);
}

StatePtr NextState(const ForwardWork& work, ForwardOutput& output,
                   ForwardDone& done) {
  StatePtr next = done.used;
  if (work.buffers.empty() &&
      MovesBuffers(work.instance->architecture(), work.options)) {
    next = WithBuffers(*next, std::move(output.buffers));
  }
  if (!work.options.rng_state.empty()) {
    done.rng_state = output.rng_state.empty() ? work.options.rng_state
                                              : std::move(output.rng_state);
  } else if (!output.rng_state.empty()) {
    next = WithRngState(*next, std::move(output.rng_state));
  }
  return next;
}

}  // namespace backboned
