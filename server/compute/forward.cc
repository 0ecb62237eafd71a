#include "server/compute/forward.h"

#include <ATen/ops/empty_like.h>

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "server/compute/cached_forward.h"
#include "server/compute/forward_replay.h"
#include "server/compute/merged_forward.h"
#include "server/device/host_view.h"

namespace backboned {
namespace {

// Keeps the recorded forward of `input`, which ran with `state`. Its account
// pays for what the graph holds, so its balance after the forward is the tape's
// size.
absl::Status KeepTape(TapeStore& tapes, const DeviceWorker::Request& request,
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
  absl::StatusOr<std::string> id =
      tapes.Put(std::move(tape), std::move(work.slot),
                work.instance->worker().clock().Now());
  if (!id.ok()) return id.status();
  done.tape_id = *std::move(id);
  // Deleting the instance dropped only the tapes of that moment.
  if (work.instance->deleted()) {
    tapes.DropInstance(work.instance->uid());
  }
  return absl::OkStatus();
}

// Returns whether a forward takes some ten microseconds, as of a perceptron and
// one image. Convolutions use a parameter more than once for each sample;
// networks with so few parameters are small anyway.
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

// Returns whether a forward waits for its turn in the instance's lane.
bool TakesLane(const ForwardWork& work) {
  return ChangesInstance(work) ||
         (work.options.training && work.buffers.empty());
}

// Runs the forward, on the worker.
absl::Status Compute(TapeStore& tapes, const DeviceWorker::Request& request,
                     ForwardWork& work, ForwardDone& done) {
  ScopedAccount scope(work.account);
  absl::StatusOr<ComputedForward> computed =
      done.used == nullptr ? ComputeForwardInLane(work, done)
                           : ComputeForward(work, done);
  if (!computed.ok()) return computed.status();
  ForwardOutput& output = computed->output;
  DeliverOutputs(work, output, done);
  done.outputs = AllCompactOnHost(std::move(done.outputs));
  if (work.return_buffers) done.buffers = AllOnHost(output.buffers);
  const StatePtr next = NextState(work, output, done);
  done.buffers_version = next->buffers_version;
  if (work.options.record) {
    absl::Status kept =
        KeepTape(tapes, request, work, *computed->state,
                 std::move(computed->input), std::move(output.graph), done);
    if (!kept.ok()) return kept;
  }
  // Nothing fails from here on.
  if (next != done.used) work.instance->Publish(next);
  return absl::OkStatus();
}

// Runs a forward on the device: with `done.used`, or, if null, in its lane.
absl::StatusOr<ForwardDone> RunOnDevice(TapeStore& tapes,
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
      request, [&] { return Compute(tapes, request, work, done); });
  if (!times.ok()) return times.status();
  done.times = *times;
  ++instance.counters().forwards;
  return done;
}

}  // namespace

absl::StatusOr<ForwardDone> RunForward(TapeStore& tapes,
                                       PayerAccounts& accounts,
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
    return RunOnDevice(tapes, std::move(request), std::move(work),
                       std::move(done));
  }
  const CachePlace place = PlaceOf(work, *done.used);
  if (std::optional<ForwardDone> cached = FindCached(work, place, done.used)) {
    return *std::move(cached);
  }
  absl::StatusOr<ForwardDone> computed =
      RunOnDevice(tapes, std::move(request), std::move(work), std::move(done));
  if (computed.ok()) {
    const Instance::Identity& identity = instance->identity();
    KeepCached(instance->cache(), place,
               accounts.Of({identity.owner, identity.session}), *computed);
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

}  // namespace backboned
