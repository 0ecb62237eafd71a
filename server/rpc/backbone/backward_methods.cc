// Serves Backward.

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backbones/forward.h"
#include "backbones/optimizer.h"
#include "base/errors.h"
#include "proto/wire/spec.h"
#include "server/compute/backward.h"
#include "server/device/host_view.h"
#include "server/rpc/backbone/backbone_service.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/convert/optimizer_convert.h"
#include "server/rpc/convert/tensor_convert.h"
#include "server/rpc/convert/timings.h"
#include "server/rpc/transport/once.h"

namespace backboned::rpc {
namespace {

// Gives a gradient with a valid spec its place in `grads`, which are by output
// of the tape, as a tensor without memory.
absl::StatusOr<at::Tensor*> GradientPlace(const Tape& tape,
                                          const v1::TensorSpec& spec,
                                          std::vector<at::Tensor>& grads) {
  const std::vector<std::string>& names = tape.output_names;
  const auto found = std::find(names.begin(), names.end(), spec.name());
  if (found == names.end()) {
    return InvalidOption(absl::StrCat("tape ", Quote(tape.id),
                                      " has no output ", Quote(spec.name())));
  }
  const auto index = static_cast<size_t>(found - names.begin());
  const at::IntArrayRef expected = tape.outputs[index].sizes();
  if (!std::equal(expected.begin(), expected.end(), spec.shape().begin(),
                  spec.shape().end())) {
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
        absl::StrCat("the gradient of ", Quote(spec.name()), " has shape ",
                     wire::ShapeString(spec), ", expected ",
                     FormatShape({expected.data(), expected.size()})));
  }
  absl::StatusOr<c10::ScalarType> dtype = FloatFromProto(
      spec.dtype(), absl::StrCat("the gradient of ", Quote(spec.name())));
  if (!dtype.ok()) return dtype.status();
  if (grads[index].defined()) {
    return InvalidOption(absl::StrCat(
        "tape ", Quote(tape.id), " has two gradients of ", Quote(spec.name())));
  }
  grads[index] = tape.outputs[index].to(*dtype);
  return &grads[index];
}

// Returns the step of a checked header; absent: none.
std::optional<StepOptions> StepOf(const v1::BackwardHeader& header) {
  if (!header.has_step()) return std::nullopt;
  return FromProto(header.step());
}

absl::Status CheckOptions(const v1::BackwardHeader& header) {
  if (header.tapes().empty()) return InvalidOption("the header names no tape");
  if (header.zero_before() && !header.accumulate()) {
    return InvalidOption("zero_before needs accumulate");
  }
  if (header.has_step() && !header.accumulate()) {
    return InvalidOption("step needs accumulate");
  }
  return absl::OkStatus();
}

// Host memory for the gradients of a header.
struct GradientUpload {
  // By tape and by output; undefined: none.
  std::vector<std::vector<at::Tensor>> by_tape;
  // The same memory in the order of the stream.
  std::vector<std::span<std::byte>> destinations;
  Budget::Reservation reservation;
};

absl::StatusOr<GradientUpload> MakeRoom(Server& server, const Call& call,
                                        const v1::BackwardHeader& header,
                                        const TapeLease& lease) {
  GradientUpload upload;
  std::vector<at::Tensor*> grads;  // In the order of the stream.
  int64_t total_bytes = 0;         // Of existing outputs, hence no overflow.
  for (size_t i = 0; i < lease.tapes().size(); ++i) {
    const Tape& tape = *lease.tapes()[i];
    upload.by_tape.emplace_back(tape.outputs.size());
    for (const v1::TensorSpec& spec :
         header.tapes(static_cast<int>(i)).gradients()) {
      absl::StatusOr<at::Tensor*> grad =
          GradientPlace(tape, spec, upload.by_tape.back());
      if (!grad.ok()) return grad.status();
      grads.push_back(*grad);
      total_bytes += static_cast<int64_t>((*grad)->nbytes());
    }
  }
  absl::StatusOr<Budget::Reservation> reservation =
      server.in_flight().Reserve(call.payer(), total_bytes);
  if (!reservation.ok()) return reservation.status();
  upload.reservation = *std::move(reservation);
  for (at::Tensor* grad : grads) {
    *grad = at::empty(grad->sizes(), grad->scalar_type());
    upload.destinations.push_back(MutableBytes(*grad));
  }
  return upload;
}

absl::Status CheckInputGrad(const v1::BackwardHeader& header,
                            const TapeLease& lease) {
  if (!header.input_grad()) return absl::OkStatus();
  for (const auto& tape : lease.tapes()) {
    if (tape->grad_inputs.empty()) {
      return InvalidOption(absl::StrCat(
          "tape ", Quote(tape->id),
          " was made without input_grad; run its forward with input_grad"));
    }
  }
  return absl::OkStatus();
}

// Returns the header of an answer whose tensors go into `tensors`.
v1::BackwardResult ResultOf(const v1::BackwardHeader& header,
                            const BackwardDone& done, const Instance& instance,
                            c10::ScalarType dtype, const Call& call,
                            AnswerTensors& tensors) {
  v1::BackwardResult result;
  *result.mutable_version() = VersionOf(instance, *done.state);
  if (header.return_grads()) {
    *result.mutable_grads() = tensors.AddGrads(done.grads, dtype);
  }
  for (const Inputs& grads : done.input_grads) {
    for (const Input& grad : grads.all) {
      // No output depends on the input: its gradient has no elements.
      *result.add_input_grads() = grad.tensor.defined()
                                      ? tensors.Add(grad.name, grad.tensor)
                                      : FlatSpec(0, dtype);
    }
  }
  for (const std::vector<at::Tensor>& grads : done.tape_grads) {
    *result.add_tape_grads() = tensors.AddGrads(grads, dtype);
  }
  if (header.squared_grads()) {
    *result.mutable_squared_grads() =
        tensors.AddGrads(done.squared_grads, dtype);
  }
  if (done.step.has_value()) *result.mutable_step() = ToProto(*done.step);
  if (header.accumulate()) {
    for (const at::Tensor& grad : done.state->grads) {
      result.add_held(grad.defined());
    }
  }
  *result.mutable_timings() = TimingsOf(done.times, call.Elapsed());
  return result;
}

}  // namespace

Task<absl::Status> BackboneService::Backward(Call& call, MessageStream& stream,
                                             const v1::BackwardHeader& header,
                                             AnswerTicket ticket) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      co_await Resolve(call, header.instance());
  if (!instance.ok()) co_return instance.status();
  absl::Status valid = CheckOptions(header);
  if (valid.ok() && header.accumulate()) {
    valid = CheckAccess(call, **instance, Access::kWrite);
  }
  if (!valid.ok()) co_return valid;
  const std::optional<StepOptions> step = StepOf(header);
  absl::StatusOr<std::optional<c10::ScalarType>> output_dtype =
      OptionalFloat(header.output_dtype(), "output_dtype");
  if (!output_dtype.ok()) co_return output_dtype.status();
  std::vector<std::string> ids;
  for (const v1::TapeGradients& tape : header.tapes())
    ids.push_back(tape.tape_id());
  absl::StatusOr<TapeLease> lease = server().tapes().Lease(
      ids, (*instance)->uid(), call.principal(), server().clock().Now());
  if (!lease.ok()) co_return lease.status();
  valid = CheckInputGrad(header, *lease);
  if (!valid.ok()) co_return valid;
  absl::StatusOr<GradientUpload> upload =
      MakeRoom(server(), call, header, *lease);
  if (!upload.ok()) co_return upload.status();
  absl::Status received = co_await stream.ReadTensors(upload->destinations);
  if (!received.ok()) co_return received;
  // Earlier calls of the stream may have configured the optimizer by now.
  if (step.has_value()) valid = CheckStep(*(*instance)->state(), *step);
  if (!valid.ok()) co_return valid;

  BackwardWork work = {.instance = *instance,
                       .lease = *std::move(lease),
                       .output_grads = std::move(upload->by_tape),
                       .retain = header.retain(),
                       .accumulate = header.accumulate(),
                       .zero_before = header.zero_before(),
                       .input_grad = header.input_grad(),
                       .return_grads = header.return_grads(),
                       .per_tape_grads = header.per_tape_grads(),
                       .squared_grads = header.squared_grads(),
                       .step = step,
                       .output_dtype = *output_dtype,
                       .reservation = std::move(upload->reservation)};
  absl::StatusOr<BackwardDone> done =
      co_await RunBackward(call.WorkerRequest(/*lane=*/0), std::move(work));
  if (!done.ok()) co_return done.status();
  call.record().times = done->times;
  call.record().flops = done->flops;
  AnswerTensors tensors;
  const v1::BackwardResult result =
      ResultOf(header, *done, **instance,
               output_dtype->value_or(DtypeOf(*done->state)), call, tensors);
  co_return co_await SendAnswer(call, ticket, stream, result,
                                std::move(tensors).Payloads());
}

}  // namespace backboned::rpc
