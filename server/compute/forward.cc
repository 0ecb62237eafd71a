#include "server/compute/forward.h"

#include <ATen/ops/empty_like.h>

#include <optional>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "server/compute/cached_forward.h"
#include "server/compute/forward_replay.h"
#include "server/compute/merged_forward.h"
#include "server/device/host_view.h"

namespace backboned {
namespace {

std::vector<at::Tensor> AllOnHost(
    std::vector<at::Tensor> tensors,
    std::optional<at::ScalarType> dtype = std::nullopt) {
  for (at::Tensor& tensor : tensors) {
    if (dtype && tensor.defined()) tensor = tensor.to(*dtype);
    tensor = OnHost(tensor);
  }
  return tensors;
}

// Results that may be kept for a retry, which counts no more than their bytes.
std::vector<at::Tensor> AllCompact(std::vector<at::Tensor> results) {
  for (at::Tensor& result : results) result = CompactOnHost(result);
  return results;
}

// Divides each row by its Euclidean norm, at least 1e-12.
at::Tensor NormalizeRows(const at::Tensor& rows) {
  const at::Tensor flat = rows.flatten(1);
  return flat.div(flat.norm(2, 1, /*keepdim=*/true).clamp_min(1e-12))
      .view(rows.sizes());
}

// Keeps the recorded forward of `input`, which ran with `state`. Its account
// pays for what the graph holds, so its balance after the forward is the tape's
// size.
absl::Status KeepTape(Host& host, const DeviceWorker::Request& request,
                      ForwardWork& work, const State& state, at::Tensor input,
                      std::shared_ptr<Graph> graph, ForwardDone& done) {
  Tape tape = {.instance_uid = work.instance->uid(),
               .principal = request.principal,
               .session = work.session,
               .bytes = work.account->live_bytes(),
               .sequence = graph->sequence(),
               .output_names = graph->output_names(),
               .input_grad = graph->input_leaf().defined(),
               .account = work.account};
  for (const at::Tensor& output : graph->outputs()) {
    tape.outputs.push_back(
        at::empty_like(output.detach(), at::TensorOptions(at::kMeta)));
  }
  tape.graph = std::move(graph);
  ForwardOptions again = work.options;
  again.sequence = tape.sequence;
  tape.replay = std::make_shared<const ForwardReplay>(
      work.instance, state, std::move(input), std::move(again));
  done.tape_bytes = tape.bytes;
  absl::StatusOr<std::string> id = host.tapes().Put(
      std::move(tape), std::move(work.slot), host.clock().Now());
  if (!id.ok()) return id.status();
  done.tape_id = *std::move(id);
  // Its deletion meanwhile dropped the tapes that were there then.
  if (work.instance->deleted()) {
    host.tapes().DropInstance(work.instance->uid());
  }
  return absl::OkStatus();
}

// Whether a forward takes some ten microseconds, as of a perceptron and one
// image. Convolutions use a parameter more than once a sample; networks of so
// few parameters are small all the same.
bool IsBrief(const ForwardWork& work) {
  constexpr int64_t kMostProducts = 200'000;
  const int64_t samples = work.input.dim() == 0 ? 0 : work.input.size(0);
  const Layout& layout = work.instance->architecture().layout();
  int64_t products = 0;
  return work.instance->worker().device().is_cpu() &&
         !__builtin_mul_overflow(samples, layout.parameter_elements(),
                                 &products) &&
         products <= kMostProducts;
}

// Whether a forward waits for its turn in the instance's lane.
bool TakesLane(const ForwardWork& work) {
  return ChangesInstance(work) ||
         (work.options.training && work.buffers.empty());
}

// Takes the state that the instance has now, which must be of the forward's
// condition, and the settings with it.
absl::Status TakeState(ForwardWork& work, StatePtr& used) {
  used = work.instance->state();
  if (work.grads_of_trained) {
    work.options.grad_mask = work.instance->trained();
  }
  return work.instance->CheckVersion(work.condition, *used);
}

// The state that a forward runs with.
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

// The forward itself, on the worker.
absl::Status Compute(Host& host, const DeviceWorker::Request& request,
                     ForwardWork& work, ForwardDone& done) {
  ScopedAccount scope(work.account);
  absl::StatusOr<ComputedForward> computed = ComputeForward(work, done);
  if (!computed.ok()) return computed.status();
  ForwardOutput& output = computed->output;
  DeliverOutputs(work, output, done);
  done.outputs = AllCompact(std::move(done.outputs));
  if (work.return_buffers) done.buffers = AllOnHost(output.buffers);
  const StatePtr next = NextState(work, output, done);
  done.buffers_version = next->buffers_version;
  if (work.options.record) {
    absl::Status kept =
        KeepTape(host, request, work, *computed->state,
                 std::move(computed->input), std::move(output.graph), done);
    if (!kept.ok()) return kept;
  }
  // Nothing fails from here on.
  if (next != done.used) work.instance->Publish(next);
  return absl::OkStatus();
}

// Runs a forward on the device: with `done.used`, or else in its lane.
absl::StatusOr<ForwardDone> RunOnDevice(Host& host,
                                        DeviceWorker::Request request,
                                        ForwardWork work, ForwardDone done) {
  Instance& instance = *work.instance;
  request.brief = IsBrief(work);
  if (MayMerge(work)) {
    const std::shared_ptr<Instance> kept = work.instance;
    absl::StatusOr<ForwardDone> merged =
        RunMerged(std::move(request), std::move(work), std::move(done.used));
    if (merged.ok()) ++kept->counters().forwards;
    return merged;
  }
  absl::StatusOr<DeviceWorker::Times> times = instance.worker().Run(
      request, [&] { return Compute(host, request, work, done); });
  if (!times.ok()) return times.status();
  done.times = *times;
  ++instance.counters().forwards;
  return done;
}

// Says that the tapes are gone, and that nothing else has changed.
absl::Status TapesLost(const absl::Status& status) {
  absl::Status lost(status.code(),
                    absl::StrCat(status.message(),
                                 "; the tapes are used up, and no gradient or "
                                 "parameter has changed"));
  status.ForEachPayload(
      [&lost](absl::string_view url, const absl::Cord& payload) {
        lost.SetPayload(url, payload);
      });
  return lost;
}

ParamGrads WantedGrads(const BackwardWork& work) {
  return {.sum = work.accumulate || work.return_grads,
          .each = work.per_tape_grads,
          .squares = work.squared_grads};
}

// Adds the gradients to the instance's and steps its optimizer if it is to, as
// one commit.
absl::Status Accumulate(const BackwardWork& work,
                        const std::vector<at::Tensor>& grads,
                        BackwardDone& done) {
  Instance& instance = *work.instance;
  absl::Status writable = instance.CheckWritable();
  if (!writable.ok()) return writable;
  State before = *done.state;
  if (work.zero_before) before.grads.assign(before.params.size(), at::Tensor());
  done.state = WithAddedGrads(before, grads);
  if (work.step.has_value()) {
    absl::StatusOr<StepOutput> step =
        Step(*done.state, *work.step, instance.trained());
    if (!step.ok()) return step.status();
    done.state = step->state;
    done.step = *std::move(step);
  }
  instance.Publish(done.state);
  return absl::OkStatus();
}

// The backward itself, on the worker.
absl::Status Compute(BackwardWork& work, BackwardDone& done) {
  Instance& instance = *work.instance;
  std::vector<GraphGradients> graphs;
  for (size_t i = 0; i < work.lease.tapes().size(); ++i) {
    const Tape& tape = *work.lease.tapes()[i];
    GraphGradients& graph = graphs.emplace_back();
    graph.graph = tape.graph.get();
    graph.make = [&tape] { return tape.replay->Run(); };
    graph.sequence = tape.sequence;
    for (size_t j = 0; j < work.output_grads[i].size(); ++j) {
      at::Tensor grad =
          OnDevice(work.output_grads[i][j], instance.worker().device());
      if (grad.defined()) grad = grad.to(tape.outputs[j].scalar_type());
      graph.output_grads.push_back(std::move(grad));
    }
  }
  BackwardOutput output =
      Backward(graphs, work.retain, work.input_grad, WantedGrads(work));
  if (work.return_grads) {
    done.grads = AllCompact(AllOnHost(output.grads, work.output_dtype));
  }
  if (work.input_grad) {
    done.input_grads =
        AllCompact(AllOnHost(std::move(output.input_grads), work.output_dtype));
  }
  for (std::vector<at::Tensor>& grads : output.graph_grads) {
    done.tape_grads.push_back(
        AllCompact(AllOnHost(std::move(grads), work.output_dtype)));
  }
  done.squared_grads =
      AllOnHost(std::move(output.squared_grads), work.output_dtype);
  done.state = instance.state();
  return work.accumulate ? Accumulate(work, output.grads, done)
                         : absl::OkStatus();
}

}  // namespace

bool ChangesInstance(const ForwardWork& work) {
  const Architecture& architecture = work.instance->architecture();
  return (work.buffers.empty() && MovesBuffers(architecture, work.options)) ||
         (work.options.rng_state.empty() && Draws(architecture, work.options));
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

absl::StatusOr<ComputedForward> ComputeForward(ForwardWork& work,
                                               ForwardDone& done) {
  Instance& instance = *work.instance;
  if (done.used == nullptr) {  // In the lane.
    absl::Status able = ChangesInstance(work) ? instance.CheckWritable()
                                              : instance.CheckAlive();
    if (!able.ok()) return able;
    absl::Status taken = TakeState(work, done.used);
    if (!taken.ok()) return taken;
  }
  const at::Tensor x = PrepareRows(work, *done.used, work.input);
  ComputedForward computed = {.state = StateToRun(work, done.used),
                              .input = std::move(work.input)};
  if (!work.options.record) computed.input.reset();
  computed.output =
      Forward(instance.architecture(), *computed.state, x, work.options);
  return computed;
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

absl::StatusOr<ForwardDone> RunForward(Host& host,
                                       DeviceWorker::Request request,
                                       ForwardWork work) {
  const std::shared_ptr<Instance> instance = work.instance;
  ForwardDone done;
  if (TakesLane(work)) {
    request.lane = instance->lane();
  } else {
    absl::Status taken = TakeState(work, done.used);
    if (!taken.ok()) return taken;
  }
  if (work.input_digest.empty()) {
    return RunOnDevice(host, std::move(request), std::move(work),
                       std::move(done));
  }
  const CachePlace place = PlaceOf(work, *done.used);
  if (std::optional<ForwardDone> cached = FindCached(work, place, done.used)) {
    return *std::move(cached);
  }
  absl::StatusOr<ForwardDone> computed =
      RunOnDevice(host, std::move(request), std::move(work), std::move(done));
  if (computed.ok()) {
    const Instance::Identity& identity = instance->identity();
    KeepCached(instance->cache(), place,
               host.accounts().Of({identity.owner, identity.session}),
               *computed);
  }
  return computed;
}

absl::StatusOr<int64_t> RowBytes(const DeviceWorker::Request& request,
                                 const ForwardWork& work) {
  Instance& instance = *work.instance;
  const std::string question =
      absl::StrCat(work.options.outputs[0], " of ",
                   FormatShape(work.input.sizes().slice(1)));
  if (const auto known = instance.RowBytes(question)) return *known;
  int64_t bytes = 0;
  absl::StatusOr<DeviceWorker::Times> times =
      instance.worker().Run(request, [&] {
        const StatePtr state = instance.state();
        const at::Tensor row =
            PrepareRows(work, *state, work.input.narrow(0, 0, 1));
        const at::Tensor output =
            Forward(instance.architecture(), *state, row, work.options)
                .outputs[0];
        bytes = c10::multiply_integers(output.sizes().slice(1)) *
                static_cast<int64_t>(output.element_size());
        return absl::OkStatus();
      });
  if (!times.ok()) return times.status();
  instance.RememberRowBytes(question, bytes);
  return bytes;
}

absl::StatusOr<BackwardDone> RunBackward(DeviceWorker::Request request,
                                         BackwardWork work) {
  Instance& instance = *work.instance;
  if (work.accumulate) {
    absl::Status writable = instance.CheckWritable();
    if (!writable.ok()) return writable;
    request.lane = instance.lane();
  }
  BackwardDone done;
  bool began = false;
  absl::StatusOr<DeviceWorker::Times> times =
      instance.worker().Run(request, [&] {
        began = true;
        return Compute(work, done);
      });
  if (began && (!work.retain || !times.ok())) work.lease.Consume();
  if (!times.ok()) return began ? TapesLost(times.status()) : times.status();
  done.times = *times;
  ++instance.counters().backwards;
  if (done.step.has_value()) ++instance.counters().steps;
  return done;
}

}  // namespace backboned
