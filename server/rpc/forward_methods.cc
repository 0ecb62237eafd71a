// Forward and Extract.

#include <ATen/ops/empty.h>

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backbones/errors.h"
#include "backbones/state.h"
#include "proto/wire/spec.h"
#include "server/compute.h"
#include "server/host_view.h"
#include "server/rpc/backbone_service.h"
#include "server/rpc/batch_norm.h"
#include "server/rpc/convert.h"
#include "server/rpc/once.h"
#include "server/rpc/transfer.h"

namespace backboned::rpc {
namespace {

// What an answer in one message may hold, so that it fits gRPC's default of 4
// MiB.
constexpr int64_t kMaxExtractBytes = (int64_t{4} << 20) - (64 << 10);

// The names of the outputs that the header asks for.
absl::StatusOr<std::vector<std::string>> OutputsOf(
    const v1::ForwardHeader& header, const Architecture& architecture) {
  std::vector<std::string> outputs(header.outputs().begin(),
                                   header.outputs().end());
  if (!outputs.empty() && header.return_type() != v1::RETURN_TYPE_UNSPECIFIED) {
    return InvalidOption("give either outputs or return_type, not both");
  }
  if (!outputs.empty()) return outputs;
  switch (header.return_type()) {
    case v1::RETURN_TYPE_UNSPECIFIED:
    case v1::RETURN_TYPE_OUT:
      return std::vector<std::string>{"out"};
    case v1::RETURN_TYPE_FEATURES:
      return std::vector<std::string>{"features"};
    case v1::RETURN_TYPE_BOTH:
      return std::vector<std::string>{"out", "features"};
    case v1::RETURN_TYPE_FULL:
      outputs.push_back("out");
      for (const std::string& name : architecture.output_names()) {
        if (name.starts_with("layers.")) outputs.push_back(name);
      }
      return outputs;
    default:
      return InvalidOption(absl::StrCat("return_type ",
                                        static_cast<int>(header.return_type()),
                                        " is none of the contract's"));
  }
}

// Which parameters get gradients: unless the header says, those that are not
// frozen.
absl::StatusOr<std::vector<bool>> GradMask(const v1::ForwardHeader& header,
                                           const Instance& instance) {
  const Layout& layout = instance.architecture().layout();
  const size_t count = layout.parameters().size();
  if (header.no_param_grads()) return std::vector<bool>(count, false);
  if (header.grad_params().globs().empty() &&
      !header.grad_params().has_range()) {
    return instance.trained();
  }
  absl::StatusOr<std::vector<Slice>> slices =
      SelectParameters(FromProto(header.grad_params()), layout);
  if (!slices.ok()) return slices.status();
  absl::Status whole = CheckWholeParameters(*slices, layout);
  if (!whole.ok()) return whole;
  std::vector<bool> mask(count, false);
  for (const Slice& slice : *slices) mask[slice.index] = true;
  return mask;
}

// A generator's state that a client gives, if it does.
absl::Status CheckRngState(std::string_view bytes) {
  if (bytes.empty()) return absl::OkStatus();
  return GeneratorFromState(std::as_bytes(std::span(bytes))).status();
}

absl::StatusOr<ForwardOptions> OptionsOf(const v1::ForwardHeader& header,
                                         const Instance& instance) {
  const Architecture& architecture = instance.architecture();
  if (header.input_grad() && !header.tape()) {
    return InvalidOption("input_grad needs tape");
  }
  absl::StatusOr<std::vector<std::string>> outputs =
      OutputsOf(header, architecture);
  if (!outputs.ok()) return outputs.status();
  absl::Status known = architecture.CheckOutputs(*outputs);
  if (!known.ok()) return known;
  if (header.prerelu() && !architecture.has_prerelu()) {
    return InvalidOption(
        absl::StrCat(architecture.name(), " has no stages before a ReLU"));
  }
  absl::Status state = CheckRngState(header.rng_state());
  if (!state.ok()) return state;
  absl::StatusOr<std::vector<BatchNormMode>> batch_norm =
      BatchNormOf(header.batch_norm(), architecture.layout());
  if (!batch_norm.ok()) return batch_norm.status();
  absl::StatusOr<std::vector<bool>> mask = GradMask(header, instance);
  if (!mask.ok()) return mask.status();
  return ForwardOptions{.outputs = *std::move(outputs),
                        .training = header.training(),
                        .prerelu = header.prerelu(),
                        .rng_state = header.rng_state(),
                        .batch_norm = *std::move(batch_norm),
                        .record = header.tape(),
                        .input_grad = header.input_grad(),
                        .grad_mask = *std::move(mask)};
}

// Returns kInvalidArgument unless images of this shape have the channels that
// they are normalised by.
absl::Status CheckChannels(std::span<const int64_t> shape,
                           const Normalization& normalization) {
  const auto channels = static_cast<int64_t>(normalization.mean.size());
  if (channels == 0 || (shape.size() > 1 && shape[1] == channels)) {
    return absl::OkStatus();
  }
  return Error(
      absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
      absl::StrCat("images have shape ", FormatShape(shape), ", expected [N, ",
                   channels, ", ...] to be normalized"));
}

// Checks the input's spec against the instance; returns its bytes.
absl::StatusOr<int64_t> CheckInput(const v1::TensorSpec& spec,
                                   const Instance& instance, bool training) {
  if (spec.dtype() != v1::DATA_TYPE_UINT8) {
    absl::StatusOr<c10::ScalarType> dtype =
        FloatFromProto(spec.dtype(), "the input");
    if (!dtype.ok()) {
      return Error(
          absl::StatusCode::kInvalidArgument, Reason::kDtypeMismatch,
          absl::StrCat(std::string(dtype.status().message()), ", or uint8"));
    }
  }
  absl::StatusOr<int64_t> bytes = wire::ByteSize(spec);
  if (!bytes.ok()) {
    const absl::string_view why = bytes.status().message();
    return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
                 {why.data(), why.size()});
  }
  const std::vector<int64_t> shape(spec.shape().begin(), spec.shape().end());
  absl::Status fits = instance.architecture().CheckInput(shape, training);
  if (fits.ok() && spec.dtype() == v1::DATA_TYPE_UINT8) {
    fits = CheckChannels(shape, instance.identity().normalization);
  }
  if (!fits.ok()) return fits;
  return bytes;
}

// Checks the specs of buffers that the header may send; returns their bytes.
absl::StatusOr<int64_t> CheckBuffers(const v1::ForwardHeader& header,
                                     const Layout& layout, const State& state) {
  if (header.buffers().empty()) return 0;
  const std::vector<Slice> all = SelectBuffers({}, layout).value();
  absl::StatusOr<std::optional<c10::ScalarType>> dtype =
      CheckBufferSpecs(header.buffers(), all, layout, state);
  if (!dtype.ok()) return dtype.status();
  int64_t bytes = 0;
  for (const Buffer& buffer : layout.buffers()) {
    const c10::ScalarType sent = c10::isFloatingType(buffer.dtype)
                                     ? dtype->value_or(buffer.dtype)
                                     : buffer.dtype;
    bytes += buffer.elements * static_cast<int64_t>(c10::elementSize(sent));
  }
  return bytes;
}

// Host memory for a tensor of this checked spec.
at::Tensor EmptyTensor(const v1::TensorSpec& spec) {
  const std::vector<int64_t> shape(spec.shape().begin(), spec.shape().end());
  return at::empty(shape, *FromProto(spec.dtype()));
}

// Host memory for what a forward's stream brings. What a tape keeps in any case
// has to fit the limit of all tapes; what the forward takes besides is bounded
// by the room's limit alone, since the tape may be demoted.
void MakeRoom(const v1::ForwardHeader& header, ForwardWork& work) {
  ScopedAccount scope(work.account);
  work.input = EmptyTensor(header.inputs(0));
  for (const v1::TensorSpec& spec : header.buffers()) {
    work.buffers.push_back(EmptyTensor(spec));
  }
  if (work.account != nullptr) work.account->SetLimit(kUnlimitedBytes);
}

v1::ForwardResult ResultOf(const Instance& instance,
                           const std::vector<std::string>& names,
                           const ForwardDone& done, const Call& call) {
  v1::ForwardResult result;
  *result.mutable_version() =
      VersionOf(instance, done.used->params_version, done.buffers_version);
  result.set_tape_id(done.tape_id);
  result.set_tape_bytes(done.tape_bytes);
  result.set_rng_state(done.rng_state);
  for (size_t i = 0; i < done.outputs.size(); ++i) {
    *result.add_outputs() = Spec(names[i], done.outputs[i]);
  }
  const std::vector<Buffer>& buffers =
      instance.architecture().layout().buffers();
  for (size_t i = 0; i < done.buffers.size(); ++i) {
    *result.add_buffers() = Spec(buffers[i].name, done.buffers[i]);
  }
  *result.mutable_timings() = TimingsOf(done.times, call.received());
  return result;
}

std::vector<wire::Payload> PayloadsOf(const ForwardDone& done) {
  std::vector<wire::Payload> payloads;
  for (const at::Tensor& output : done.outputs)
    payloads.push_back(ToPayload(output));
  for (const at::Tensor& buffer : done.buffers)
    payloads.push_back(ToPayload(buffer));
  return payloads;
}

// The forward of a checked Extract, its input in place.
absl::StatusOr<ForwardWork> WorkOf(const v1::ExtractRequest& request,
                                   std::shared_ptr<Instance> instance) {
  ForwardWork work = {
      .instance = std::move(instance),
      .l2_normalize = request.l2_normalize(),
      .allow_merge = !request.has_allow_merge() || request.allow_merge()};
  work.options.outputs = {request.output().empty() ? "features"
                                                   : request.output()};
  absl::Status known =
      work.instance->architecture().CheckOutputs(work.options.outputs);
  if (!known.ok()) return known;
  absl::StatusOr<int64_t> bytes =
      CheckInput(request.input(), *work.instance, /*training=*/false);
  if (!bytes.ok()) return bytes.status();
  if (static_cast<int64_t>(request.data().size()) != *bytes) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
                 absl::StrCat("data has ", request.data().size(),
                              " bytes, its spec ", *bytes));
  }
  work.input = EmptyTensor(request.input());
  std::memcpy(MutableBytes(work.input).data(), request.data().data(),
              request.data().size());
  return work;
}

}  // namespace

absl::Status BackboneService::Forward(Call& call, MessageStream& stream) {
  v1::ForwardHeader header;
  absl::Status read = stream.ReadHeader(header);
  if (!read.ok()) return read;
  const std::vector<std::string> unneeded(header.release_tapes().begin(),
                                          header.release_tapes().end());
  host().tapes().Release(unneeded, call.principal());
  absl::StatusOr<AnswerLog::Attempt> attempt =
      BeginAttempt(host(), call, header.request_id(), header);
  if (!attempt.ok()) return attempt.status();
  if (const auto* recorded = std::get_if<RecordedAnswer>(&*attempt)) {
    v1::ForwardResult result;
    absl::StatusOr<std::vector<wire::Payload>> payloads =
        Recall(*recorded, result);
    if (!payloads.ok()) return payloads.status();
    return stream.WriteTensors(result, *std::move(payloads));
  }
  return RunNewForward(call, stream, header,
                       std::get<AnswerTicket>(*std::move(attempt)));
}

absl::StatusOr<ForwardWork> BackboneService::Prepare(
    Call& call, const v1::ForwardHeader& header) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Find(call, header.instance());
  if (!instance.ok()) return instance.status();
  absl::StatusOr<ForwardOptions> options = OptionsOf(header, **instance);
  if (!options.ok()) return options.status();
  absl::StatusOr<std::optional<c10::ScalarType>> output_dtype =
      OptionalFloat(header.output_dtype(), "output_dtype");
  if (!output_dtype.ok()) return output_dtype.status();
  if (header.training() || header.tape()) {
    absl::Status trains = (*instance)->CheckTrains();
    if (!trains.ok()) return trains;
  }
  if (header.inputs_size() != 1) {
    return InvalidOption(absl::StrCat(
        "a forward takes 1 input, the header has ", header.inputs_size()));
  }
  absl::StatusOr<int64_t> bytes =
      CheckInput(header.inputs(0), **instance, UsesBatchStatistics(*options));
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<int64_t> buffer_bytes = CheckBuffers(
      header, (*instance)->architecture().layout(), *(*instance)->state());
  if (!buffer_bytes.ok()) return buffer_bytes.status();
  absl::StatusOr<Budget::Reservation> reservation =
      host().in_flight().Reserve(call.payer(), *bytes + *buffer_bytes);
  if (!reservation.ok()) return reservation.status();

  ForwardWork work = {.instance = *instance,
                      .options = *std::move(options),
                      .condition = FromProto(header.if_version()),
                      .return_buffers = header.return_buffers(),
                      .allow_merge = header.allow_merge(),
                      .output_dtype = *output_dtype,
                      .reservation = *std::move(reservation),
                      .session = call.session()};
  if (header.tape()) {
    absl::StatusOr<TapeSlot> slot =
        host().tapes().Reserve(call.payer(), absl::Now());
    if (!slot.ok()) return slot.status();
    work.slot = *std::move(slot);
    work.account = std::make_shared<MemoryAccount>(
        MemoryAccount::Options{.name = "max-tape-bytes",
                               .limit_bytes = host().limits().max_tape_bytes,
                               .parent = call.account()});
  }
  MakeRoom(header, work);
  if (ChangesInstance(work)) {
    absl::Status writable = work.instance->CheckWritable();
    if (!writable.ok()) return writable;
  }
  return work;
}

absl::Status BackboneService::RunNewForward(Call& call, MessageStream& stream,
                                            const v1::ForwardHeader& header,
                                            AnswerTicket ticket) {
  absl::StatusOr<ForwardWork> work = Prepare(call, header);
  if (!work.ok()) return work.status();
  std::vector<std::span<std::byte>> places = {MutableBytes(work->input)};
  for (at::Tensor& buffer : work->buffers) {
    places.push_back(MutableBytes(buffer));
  }
  absl::Status received = stream.ReadTensors(std::move(places));
  if (!received.ok()) return received;
  const std::shared_ptr<Instance> instance = work->instance;
  const std::vector<std::string> names = work->options.outputs;
  absl::StatusOr<ForwardDone> done =
      RunForward(host(), call.WorkerRequest(/*lane=*/0), *std::move(work));
  if (!done.ok()) return done.status();
  call.record().times = done->times;
  const v1::ForwardResult result = ResultOf(*instance, names, *done, call);
  std::vector<wire::Payload> payloads = PayloadsOf(*done);
  RecordAnswer(ticket, result, payloads);
  absl::Status written = stream.WriteTensors(result, std::move(payloads));
  // gRPC does not say whether the last message could be sent, since it travels
  // with the call's status.
  if (written.ok() && header.tape() && call.IsCancelled()) {
    written = absl::CancelledError("the client went away");
  }
  // Without a request id nobody can ask for the tape's name again.
  if (!written.ok() && header.request_id().empty()) {
    host().tapes().Release({done->tape_id}, call.principal());
  }
  return written;
}

absl::StatusOr<v1::ExtractResponse> BackboneService::Extract(
    Call& call, const v1::ExtractRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Find(call, request.instance());
  if (!instance.ok()) return instance.status();
  absl::StatusOr<ForwardWork> work = WorkOf(request, *instance);
  if (!work.ok()) return work.status();
  const std::string name = work->options.outputs[0];
  absl::StatusOr<ForwardDone> done =
      RunForward(host(), call.WorkerRequest(/*lane=*/0), *std::move(work));
  if (!done.ok()) return done.status();
  call.record().times = done->times;
  const at::Tensor& output = done->outputs[0];
  if (static_cast<int64_t>(output.nbytes()) > kMaxExtractBytes) {
    return InvalidOption(absl::StrCat(
        "the result has ", output.nbytes(), " bytes, at most ",
        kMaxExtractBytes, " fit one message; use Forward or a smaller batch"));
  }
  absl::StatusOr<std::string> digest =
      (*instance)->Digest(call.WorkerRequest(/*lane=*/0), done->used);
  if (!digest.ok()) return digest.status();
  v1::ExtractResponse response;
  response.set_instance((*instance)->FullName());
  *response.mutable_version() = VersionOf(**instance, *done->used);
  response.set_digest(*std::move(digest));
  *response.mutable_output() = Spec(name, output);
  response.set_data(output.const_data_ptr(), output.nbytes());
  return response;
}

}  // namespace backboned::rpc
