#include "server/compute/backward.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "backbones/forward.h"
#include "server/device/host_view.h"

namespace backboned {
namespace {

// Adds to an error that the tapes are gone and nothing else has changed.
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

// Adds the gradients to the instance's, and steps its optimizer if asked to, as
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

// Runs the backward, on the worker. The first try may have used up graphs, so a
// second one gives all of them up.
absl::Status Compute(BackwardWork& work, bool is_second, BackwardDone& done) {
  Instance& instance = *work.instance;
  done = {};
  if (is_second) work.lease.Demote();
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
  done.flops = output.flops;
  if (work.return_grads) {
    done.grads = AllCompactOnHost(output.grads, work.output_dtype);
  }
  for (const Inputs& grads : output.input_grads) {
    done.input_grads.push_back(grads.Map([&](const at::Tensor& grad) {
      return CompactOnHost(OnHost(grad, work.output_dtype));
    }));
  }
  for (std::vector<at::Tensor>& grads : output.graph_grads) {
    done.tape_grads.push_back(
        AllCompactOnHost(std::move(grads), work.output_dtype));
  }
  done.squared_grads =
      AllOnHost(std::move(output.squared_grads), work.output_dtype);
  done.state = instance.state();
  return work.accumulate ? Accumulate(work, output.grads, done)
                         : absl::OkStatus();
}

}  // namespace

Task<absl::StatusOr<BackwardDone>> RunBackward(DeviceWorker::Request request,
                                               BackwardWork work) {
  Instance& instance = *work.instance;
  request.precision = instance.identity().precision;
  if (work.accumulate) {
    absl::Status writable = instance.CheckWritable();
    if (!writable.ok()) co_return writable;
    request.lane = instance.lane();
  }
  BackwardDone done;
  bool began = false;
  const DeviceWorker::Work run = [&] {
    return Compute(work, std::exchange(began, true), done);
  };
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await instance.worker().Run(request, run);
  if (began && (!work.retain || !times.ok())) work.lease.Consume();
  if (!times.ok()) co_return began ? TapesLost(times.status()) : times.status();
  done.times = *times;
  ++instance.counters().backwards;
  if (done.step.has_value()) ++instance.counters().steps;
  co_return done;
}

}  // namespace backboned
