#include "server/compute/forward_run.h"

#include <utility>

#include "server/device/host_view.h"

namespace backboned {
namespace {

// Divides each row by its Euclidean norm, at least 1e-12.
at::Tensor NormalizeRows(const at::Tensor& rows) {
  const at::Tensor flat = rows.flatten(1);
  return flat.div(flat.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12))
      .view(rows.sizes());
}

// Returns the state that a forward runs with.
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

at::Tensor PrepareRows(const ForwardWork& work, const State& state,
                       const at::Tensor& rows) {
  const Instance& instance = *work.instance;
  const Normalization& normalization = instance.identity().normalization;
  return PrepareInput(OnDevice(rows, instance.worker().device()),
                      normalization.mean, normalization.std, DtypeOf(state));
}

void DeliverOutputs(const ForwardWork& work, ForwardOutput& output,
                    ForwardDone& done) {
  if (work.l2_normalize) {
    for (at::Tensor& rows : output.outputs) rows = NormalizeRows(rows);
  }
  done.outputs = AllOnHost(std::move(output.outputs), work.output_dtype);
}

ComputedForward ComputeForward(ForwardWork& work, const ForwardDone& done) {
  const at::Tensor x = PrepareRows(work, *done.used, work.input);
  ComputedForward computed = {.state = StateToRun(work, done.used),
                              .input = std::move(work.input)};
  if (!work.options.record) computed.input.reset();
  computed.output =
      Forward(work.instance->architecture(), *computed.state, x, work.options);
  return computed;
}

absl::StatusOr<ComputedForward> ComputeForwardInLane(ForwardWork& work,
                                                     ForwardDone& done) {
  absl::Status able = ChangesInstance(work) ? work.instance->CheckWritable()
                                            : work.instance->CheckAlive();
  if (able.ok()) able = TakeState(work, done.used);
  if (!able.ok()) return able;
  return ComputeForward(work, done);
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
