#include "server/compute/forward.h"

#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "server/compute/cached_forward.h"
#include "server/compute/forward_replay.h"
#include "server/compute/merged_forward.h"
#include "server/device/devices.h"
#include "server/device/gpu_memory.h"
#include "server/device/host_view.h"

namespace backboned {
namespace {

// Charges a recorded forward's account with what its graph has of the GPU's
// memory, by the forward's meter. New buffers are charged already.
std::shared_ptr<const void> ChargeGraph(const ForwardWork& work,
                                        const std::optional<GpuMeter>& meter) {
  if (!meter.has_value()) return nullptr;
  const int64_t charged = work.account->live_bytes_on_gpus();
  return ChargeGpuMemory(work.account,
                         std::max(meter->bytes() - charged, int64_t{0}));
}

// Keeps a recorded forward, which ran with `state`. Its account pays for what
// the graph holds, so its balance after the forward is the tape's size.
absl::Status KeepTape(TapeStore& tapes, const DeviceWorker::Request& request,
                      ForwardWork& work, const State& state,
                      std::shared_ptr<Graph> graph,
                      std::shared_ptr<const void> gpu_memory,
                      ForwardDone& done) {
  Tape tape = {
      .instance_uid = work.instance->uid(),
      .principal = request.principal,
      .session = work.session,
      .bytes = work.account->live_bytes() + work.account->live_bytes_on_gpus(),
      .sequence = graph->sequence,
      .output_names = graph->output_names,
      .account = work.account,
      .gpu_memory = std::move(gpu_memory)};
  for (const Input& leaf : graph->input_leaves.all) {
    tape.grad_inputs.push_back(leaf.name);
  }
  for (const at::Tensor& output : graph->outputs) {
    tape.outputs.push_back(
        at::empty_like(output.detach(), at::TensorOptions(at::kMeta)));
  }
  tape.graph = std::move(graph);
  ForwardOptions again = work.options;
  again.sequence = tape.sequence;
  tape.replay = std::make_shared<const ForwardReplay>(
      work.instance, state, std::move(work.inputs), std::move(again));
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

// Returns whether a forward waits for its turn in the instance's lane.
bool TakesLane(const ForwardWork& work) {
  return ChangesInstance(work) ||
         (work.options.training && work.buffers.empty());
}

// Runs the forward, on the worker.
absl::Status Compute(TapeStore& tapes, const DeviceWorker::Request& request,
                     ForwardWork& work, ForwardDone& done) {
  ScopedAccount scope(work.account);
  if (TakesLane(work)) {
    absl::Status able = ChangesInstance(work) ? work.instance->CheckWritable()
                                              : work.instance->CheckAlive();
    if (able.ok()) able = TakeState(work, done.used);
    if (!able.ok()) return able;
  }
  const StatePtr state = StateToRun(work, done.used);
  const c10::Device device = work.instance->worker().device();
  std::optional<GpuMeter> meter;
  if (work.options.record && !device.is_cpu()) meter.emplace(device);
  ForwardOutput output = ComputeForward(work, *state);
  done.flops = output.flops.forward;
  done.outputs =
      AllCompactOnHost(DeliverOutputs(work, std::move(output.outputs)));
  if (work.return_buffers) done.buffers = AllOnHost(output.buffers);
  const StatePtr next = NextState(work, output, done);
  done.buffers_version = next->buffers_version;
  if (next != done.used) work.instance->CountOnGpu(*next);
  if (work.options.record) {
    WaitFor(device);
    absl::Status kept =
        KeepTape(tapes, request, work, *state, std::move(output.graph),
                 ChargeGraph(work, meter), done);
    if (!kept.ok()) return kept;
  }
  // Nothing fails from here on.
  if (next != done.used) work.instance->Publish(next);
  return absl::OkStatus();
}

// Runs a forward on the device: in its lane, or with `done.used`.
Task<absl::StatusOr<ForwardDone>> RunOnDevice(TapeStore& tapes,
                                              DeviceWorker::Request request,
                                              ForwardWork work,
                                              ForwardDone done) {
  if (MayMerge(work)) {
    co_return co_await RunMerged(std::move(request), std::move(work),
                                 std::move(done.used));
  }
  const DeviceWorker::Work run = [&] {
    return Compute(tapes, request, work, done);
  };
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await work.instance->worker().Run(request, run);
  if (!times.ok()) co_return times.status();
  done.times = *times;
  co_return std::move(done);
}

}  // namespace

Task<absl::StatusOr<ForwardDone>> RunForward(TapeStore& tapes,
                                             PayerAccounts& accounts,
                                             DeviceWorker::Request request,
                                             ForwardWork work) {
  const std::shared_ptr<Instance> instance = work.instance;
  request.precision = instance->identity().precision;
  ForwardDone done;
  if (TakesLane(work)) {
    request.lane = instance->lane();
  } else {
    absl::Status taken = TakeState(work, done.used);
    if (!taken.ok()) co_return taken;
  }
  std::optional<CachePlace> place;
  if (!work.input_digest.empty()) {
    place = PlaceOf(work, *done.used);
    std::optional<ForwardDone> cached = FindCached(work, *place, done.used);
    if (cached.has_value()) co_return *std::move(cached);
  }
  absl::StatusOr<ForwardDone> computed = co_await RunOnDevice(
      tapes, std::move(request), std::move(work), std::move(done));
  if (!computed.ok()) co_return computed;
  ++instance->counters().forwards;
  if (place.has_value()) {
    const Instance::Identity& identity = instance->identity();
    KeepCached(instance->cache(), *place,
               accounts.Of({identity.owner, identity.session}), *computed);
  }
  co_return std::move(computed);
}

Task<absl::StatusOr<int64_t>> RowBytes(DeviceWorker::Request request,
                                       const ForwardWork& work) {
  Instance& instance = *work.instance;
  const std::string question =
      absl::StrCat(work.options.outputs[0], " of ",
                   FormatShape(work.inputs.x().sizes().slice(1)));
  request.precision = instance.identity().precision;
  if (const auto known = instance.RowBytes(question)) co_return *known;
  int64_t bytes = 0;
  const DeviceWorker::Work measure = [&] {
    const StatePtr state = instance.state();
    const Inputs row = PrepareInputs(instance, *state, work.inputs.Rows(0, 1));
    const at::Tensor output =
        Forward(instance.architecture(), *state, row, work.options).outputs[0];
    bytes = c10::multiply_integers(output.sizes().slice(1)) *
            static_cast<int64_t>(output.element_size());
    return absl::OkStatus();
  };
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await instance.worker().Run(request, measure);
  if (!times.ok()) co_return times.status();
  instance.RememberRowBytes(question, bytes);
  co_return bytes;
}

}  // namespace backboned
