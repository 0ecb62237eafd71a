#include "client/cpp/backbone.h"

#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/announced.h"
#include "client/cpp/calls.h"
#include "client/cpp/retry.h"
#include "proto/wire/spec.h"

namespace backboned::client {
namespace {

const Sources kNoSources;
const Destinations kNoTensors;

// Returns the header of an answer, and the bytes of each tensor that it
// announces, whose sum fits an int64 too.
template <typename Result>
absl::StatusOr<std::vector<int64_t>> ParseResult(const wire::Message& first,
                                                 Result& result) {
  const absl::Status parsed = first.ParseHeader(result);
  if (!parsed.ok()) return absl::InternalError(parsed.message());
  std::vector<int64_t> sizes_bytes;
  int64_t total = 0;
  for (const v1::TensorSpec* spec : AnnouncedBy(result)) {
    const absl::StatusOr<int64_t> bytes = wire::ByteSize(*spec);
    if (!bytes.ok()) return absl::InternalError(bytes.status().message());
    if (__builtin_add_overflow(total, *bytes, &total)) {
      return absl::InternalError("the answer's tensors are too large");
    }
    sizes_bytes.push_back(*bytes);
  }
  return sizes_bytes;
}

template <typename Result>
absl::StatusOr<Received<Result>> Receive(Calls& calls, Calls::Call& call,
                                         int64_t max_bytes) {
  absl::StatusOr<wire::Message> first = calls.WaitForResult(call);
  if (!first.ok()) return first.status();
  Received<Result> received;
  const auto sizes_bytes = ParseResult(*first, received.result);
  if (!sizes_bytes.ok()) return sizes_bytes.status();
  auto tensors = Tensors::Allocate(*sizes_bytes, max_bytes);
  if (!tensors.ok()) return tensors.status();
  received.tensors = *std::move(tensors);
  const absl::Status status =
      calls.Receive(call, *std::move(first), received.tensors.spans());
  if (!status.ok()) return status;
  return received;
}

template <typename Result>
absl::StatusOr<Result> Receive(Calls& calls, Calls::Call& call,
                               const Destinations& destinations) {
  absl::StatusOr<wire::Message> first = calls.WaitForResult(call);
  if (!first.ok()) return first.status();
  Result result;
  const auto sizes_bytes = ParseResult(*first, result);
  if (!sizes_bytes.ok()) return sizes_bytes.status();
  int64_t announced = 0, room = 0;
  for (const int64_t bytes : *sizes_bytes) announced += bytes;
  for (const auto& destination : destinations) room += std::ssize(destination);
  if (announced != room) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the answer has ", announced, " bytes, its destination ", room));
  }
  const absl::Status status =
      calls.Receive(call, *std::move(first), destinations);
  if (!status.ok()) return status;
  return result;
}

// The request of a verb.
struct Request {
  uint32_t field;  // CallsRequest's, of the header.
  const google::protobuf::MessageLite& header;
  const Sources& tensors = kNoSources;
};

// Makes a call; `receive` takes its answer.
template <typename Receive>
std::invoke_result_t<Receive&, Calls&, Calls::Call&> Exchange(
    const Connection& connection, const Request& request, Receive receive) {
  return Retry(connection.options(), [&](absl::Duration left) {
    Calls& calls = connection.calls();
    const std::unique_ptr<Calls::Call> call =
        calls.Begin({.field = request.field,
                     .header = request.header.SerializeAsString(),
                     .tensors = request.tensors,
                     .timeout = left});
    return receive(calls, *call);
  });
}

template <typename Result>
absl::StatusOr<Received<Result>> Ask(const Connection& connection,
                                     const Request& request) {
  return Exchange(connection, request, [&](Calls& calls, Calls::Call& call) {
    return Receive<Result>(calls, call, connection.options().max_answer_bytes);
  });
}

template <typename Result>
absl::StatusOr<Result> Ask(const Connection& connection, const Request& request,
                           const Destinations& destinations) {
  return Exchange(connection, request, [&](Calls& calls, Calls::Call& call) {
    return Receive<Result>(calls, call, destinations);
  });
}

v1::TensorSpec FlatSpec(Source bytes) {
  v1::TensorSpec spec;
  spec.set_dtype(v1::DATA_TYPE_FLOAT32);
  spec.add_shape(std::ssize(bytes) / int64_t{sizeof(float)});
  return spec;
}

using Field = v1::CallsRequest;

}  // namespace

Backbone::Backbone(std::shared_ptr<const Connection> connection,
                   std::string name)
    : connection_(std::move(connection)), name_(std::move(name)) {}

template <typename Header>
Header Backbone::SetName(Header header) const {
  header.set_instance(name_);
  connection_->NameChange(header);
  return header;
}

absl::StatusOr<Received<v1::ForwardResult>> Backbone::Forward(
    v1::ForwardHeader header, const Sources& input) const {
  return Ask<v1::ForwardResult>(
      *connection_,
      {Field::kForwardFieldNumber, SetName(std::move(header)), input});
}

absl::StatusOr<v1::ForwardResult> Backbone::Forward(
    v1::ForwardHeader header, const Sources& input,
    Destinations destinations) const {
  return Ask<v1::ForwardResult>(
      *connection_,
      {Field::kForwardFieldNumber, SetName(std::move(header)), input},
      destinations);
}

absl::StatusOr<Received<v1::BackwardResult>> Backbone::Backward(
    v1::BackwardHeader header, const Sources& gradients) const {
  return Ask<v1::BackwardResult>(
      *connection_,
      {Field::kBackwardFieldNumber, SetName(std::move(header)), gradients});
}

absl::StatusOr<v1::BackwardResult> Backbone::Backward(
    v1::BackwardHeader header, const Sources& gradients,
    Destinations destinations) const {
  return Ask<v1::BackwardResult>(
      *connection_,
      {Field::kBackwardFieldNumber, SetName(std::move(header)), gradients},
      destinations);
}

absl::StatusOr<Received<v1::TrainStepResult>> Backbone::TrainStep(
    v1::TrainStepHeader header, const Sources& batch) const {
  return Ask<v1::TrainStepResult>(
      *connection_,
      {Field::kTrainStepFieldNumber, SetName(std::move(header)), batch});
}

absl::StatusOr<v1::TrainStepResult> Backbone::TrainStep(
    v1::TrainStepHeader header, const Sources& batch,
    Destinations destinations) const {
  return Ask<v1::TrainStepResult>(
      *connection_,
      {Field::kTrainStepFieldNumber, SetName(std::move(header)), batch},
      destinations);
}

absl::StatusOr<v1::ReleaseTapesResponse> Backbone::ReleaseTapes(
    const std::vector<std::string>& tape_ids) const {
  v1::ReleaseTapesRequest request;
  request.mutable_tape_ids()->Assign(tape_ids.begin(), tape_ids.end());
  return Ask<v1::ReleaseTapesResponse>(
      *connection_, {Field::kReleaseTapesFieldNumber, request}, kNoTensors);
}

absl::StatusOr<Received<v1::GetParamsResult>> Backbone::GetParams(
    v1::GetParamsRequest request) const {
  return Ask<v1::GetParamsResult>(*connection_, {Field::kGetParamsFieldNumber,
                                                 SetName(std::move(request))});
}

absl::StatusOr<v1::GetParamsResult> Backbone::GetParams(
    v1::GetParamsRequest request, std::span<std::byte> destination) const {
  return Ask<v1::GetParamsResult>(
      *connection_, {Field::kGetParamsFieldNumber, SetName(std::move(request))},
      {destination});
}

absl::StatusOr<v1::SetParamsResponse> Backbone::SetParams(
    Source params, v1::SetParamsHeader header) const {
  if (!header.has_spec()) *header.mutable_spec() = FlatSpec(params);
  const Sources sources = {params};
  return Ask<v1::SetParamsResponse>(
      *connection_,
      {Field::kSetParamsFieldNumber, SetName(std::move(header)), sources},
      kNoTensors);
}

absl::StatusOr<Received<v1::GetGradsResult>> Backbone::GetGrads(
    v1::GetGradsRequest request) const {
  return Ask<v1::GetGradsResult>(
      *connection_, {Field::kGetGradsFieldNumber, SetName(std::move(request))});
}

absl::StatusOr<v1::GetGradsResult> Backbone::GetGrads(
    v1::GetGradsRequest request, std::span<std::byte> destination) const {
  return Ask<v1::GetGradsResult>(
      *connection_, {Field::kGetGradsFieldNumber, SetName(std::move(request))},
      {destination});
}

absl::StatusOr<v1::SetGradsResponse> Backbone::SetGrads(
    Source grads, v1::SetGradsHeader header) const {
  if (!header.grads().has_spec()) {
    *header.mutable_grads()->mutable_spec() = FlatSpec(grads);
  }
  const Sources sources = {grads};
  return Ask<v1::SetGradsResponse>(
      *connection_,
      {Field::kSetGradsFieldNumber, SetName(std::move(header)), sources},
      kNoTensors);
}

absl::StatusOr<v1::ZeroGradsResponse> Backbone::ZeroGrads(
    v1::ZeroGradsRequest request) const {
  return Ask<v1::ZeroGradsResponse>(
      *connection_, {Field::kZeroGradsFieldNumber, SetName(std::move(request))},
      kNoTensors);
}

absl::StatusOr<Received<v1::GetBuffersResult>> Backbone::GetBuffers(
    v1::GetBuffersRequest request) const {
  return Ask<v1::GetBuffersResult>(*connection_, {Field::kGetBuffersFieldNumber,
                                                  SetName(std::move(request))});
}

absl::StatusOr<v1::GetBuffersResult> Backbone::GetBuffers(
    v1::GetBuffersRequest request, Destinations destinations) const {
  return Ask<v1::GetBuffersResult>(
      *connection_,
      {Field::kGetBuffersFieldNumber, SetName(std::move(request))},
      destinations);
}

absl::StatusOr<v1::SetBuffersResponse> Backbone::SetBuffers(
    v1::SetBuffersHeader header, const Sources& buffers) const {
  return Ask<v1::SetBuffersResponse>(
      *connection_,
      {Field::kSetBuffersFieldNumber, SetName(std::move(header)), buffers},
      kNoTensors);
}

absl::StatusOr<v1::ConfigureOptimizerResponse> Backbone::ConfigureOptimizer(
    v1::ConfigureOptimizerRequest request) const {
  return Ask<v1::ConfigureOptimizerResponse>(
      *connection_,
      {Field::kConfigureOptimizerFieldNumber, SetName(std::move(request))},
      kNoTensors);
}

absl::StatusOr<v1::StepResponse> Backbone::Step(v1::StepRequest request) const {
  return Ask<v1::StepResponse>(
      *connection_, {Field::kStepFieldNumber, SetName(std::move(request))},
      kNoTensors);
}

absl::StatusOr<Received<v1::GetOptimizerStateResult>>
Backbone::GetOptimizerState(v1::GetOptimizerStateRequest request) const {
  return Ask<v1::GetOptimizerStateResult>(
      *connection_,
      {Field::kGetOptimizerStateFieldNumber, SetName(std::move(request))});
}

absl::StatusOr<v1::GetOptimizerStateResult> Backbone::GetOptimizerState(
    v1::GetOptimizerStateRequest request, Destinations destinations) const {
  return Ask<v1::GetOptimizerStateResult>(
      *connection_,
      {Field::kGetOptimizerStateFieldNumber, SetName(std::move(request))},
      destinations);
}

absl::StatusOr<v1::SetOptimizerStateResponse> Backbone::SetOptimizerState(
    v1::SetOptimizerStateHeader header, const Sources& tensors) const {
  return Ask<v1::SetOptimizerStateResponse>(
      *connection_,
      {Field::kSetOptimizerStateFieldNumber, SetName(std::move(header)),
       tensors},
      kNoTensors);
}

absl::StatusOr<v1::ExtractResponse> Backbone::Extract(
    v1::ExtractRequest request) const {
  return connection_->Ask(connection_->backbones(),
                          &v1::BackboneService::Stub::Extract,
                          SetName(std::move(request)));
}

}  // namespace backboned::client
