#include "server/compute/train.h"

#include <utility>

#include "backbones/forward.h"
#include "server/compute/loss_gradients.h"
#include "server/device/host_view.h"

namespace backboned {
namespace {

// Runs the training step, on the worker.
absl::Status Compute(TrainWork& work, TrainDone& done) {
  Instance& instance = *work.forward.instance;
  absl::Status valid = instance.CheckWritable();
  if (valid.ok()) valid = CheckStep(*instance.state(), work.step);
  ForwardDone forward;
  if (valid.ok()) valid = TakeState(work.forward, forward.used);
  if (!valid.ok()) return valid;
  absl::StatusOr<LossGradients> found =
      ComputeLossGradients(work.forward, *forward.used, work.terms);
  if (!found.ok()) return found.status();
  ForwardOutput output = {.buffers = std::move(found->buffers),
                          .rng_state = std::move(found->rng_state)};
  State before = *NextState(work.forward, output, forward);
  before.grads = std::move(found->grads);
  absl::StatusOr<StepOutput> step = Step(before, work.step, instance.trained());
  if (!step.ok()) return step.status();
  done.rng_state = std::move(forward.rng_state);
  done.step = *std::move(step);
  done.flops = found->flops;
  // Last, since these wait for the device.
  done.loss = ReadLoss(found->loss);
  if (work.return_logits) done.logits = OnHost(found->logits);
  instance.Publish(done.step.state);
  return absl::OkStatus();
}

}  // namespace

Task<absl::StatusOr<StepDone>> RunStep(DeviceWorker::Request request,
                                       Instance& instance,
                                       VersionCondition condition,
                                       StepOptions options) {
  request.lane = instance.lane();
  StepDone done;
  const DeviceWorker::Work work = [&]() -> absl::Status {
    const StatePtr current = instance.state();
    absl::Status writable = instance.CheckWritable();
    if (!writable.ok()) return writable;
    absl::Status expected = instance.CheckVersion(condition, *current);
    if (!expected.ok()) return expected;
    absl::StatusOr<StepOutput> output =
        Step(*current, options, instance.trained());
    if (!output.ok()) return output.status();
    done.output = *std::move(output);
    instance.Publish(done.output.state);
    return absl::OkStatus();
  };
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await instance.worker().Run(request, work);
  if (!times.ok()) co_return times.status();
  done.times = *times;
  ++instance.counters().steps;
  co_return done;
}

Task<absl::StatusOr<TrainDone>> RunTrainStep(DeviceWorker::Request request,
                                             TrainWork work) {
  const std::shared_ptr<Instance> instance = work.forward.instance;
  request.lane = instance->lane();
  request.precision = instance->identity().precision;
  work.forward.options.record = true;
  work.forward.grads_of_trained = true;
  work.step.zero_after = true;
  TrainDone done;
  const DeviceWorker::Work run = [&] { return Compute(work, done); };
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await instance->worker().Run(request, run);
  if (!times.ok()) co_return times.status();
  done.times = *times;
  ++instance->counters().forwards;
  ++instance->counters().backwards;
  ++instance->counters().steps;
  co_return done;
}

}  // namespace backboned
