#include "client/cpp/backbone.h"

#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/announced.h"
#include "client/cpp/call.h"
#include "client/cpp/retry.h"
#include "proto/wire/spec.h"

namespace backboned::client {
namespace {

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
absl::StatusOr<Received<Result>> Receive(Call& call, int64_t max_bytes) {
  Received<Result> received;
  const auto place =
      [&](const wire::Message& first) -> absl::StatusOr<Destinations> {
    const auto sizes_bytes = ParseResult(first, received.result);
    if (!sizes_bytes.ok()) return sizes_bytes.status();
    auto tensors = Tensors::Allocate(*sizes_bytes, max_bytes);
    if (!tensors.ok()) return tensors.status();
    received.tensors = *std::move(tensors);
    return received.tensors.spans();
  };
  const absl::Status status = call.ReceiveTensors(place);
  if (!status.ok()) return status;
  return received;
}

template <typename Result>
absl::StatusOr<Result> Receive(Call& call, Destinations destinations) {
  Result result;
  const auto place =
      [&](const wire::Message& first) -> absl::StatusOr<Destinations> {
    const auto sizes_bytes = ParseResult(first, result);
    if (!sizes_bytes.ok()) return sizes_bytes.status();
    int64_t announced = 0, room = 0;
    for (const int64_t bytes : *sizes_bytes) announced += bytes;
    for (const auto& destination : destinations)
      room += std::ssize(destination);
    if (announced == room) return std::move(destinations);
    return absl::InvalidArgumentError(absl::StrCat(
        "the answer has ", announced, " bytes, its destination ", room));
  };
  const absl::Status status = call.ReceiveTensors(place);
  if (!status.ok()) return status;
  return result;
}

template <typename Response>
absl::StatusOr<Response> ReceiveMessage(Call& call) {
  Response response;
  const absl::Status status = call.ReceiveMessage(response);
  if (!status.ok()) return status;
  return response;
}

// The request of a verb.
struct Request {
  const char* method;
  const google::protobuf::MessageLite& header;
  const Sources* tensors = nullptr;  // Null: the request has only a header.
};

// Makes a call; `receive` takes its answer.
template <typename Receive>
std::invoke_result_t<Receive&, Call&> Exchange(const Connection& connection,
                                               const Request& request,
                                               Receive receive) {
  return Retry(connection.options(), [&](absl::Duration left) {
    Call call(connection, request.method, left);
    if (request.tensors == nullptr) {
      call.SendMessage(request.header);
    } else {
      call.SendTensors(request.header, *request.tensors);
    }
    return receive(call);
  });
}

template <typename Result>
absl::StatusOr<Received<Result>> Ask(const Connection& connection,
                                     const Request& request) {
  return Exchange(connection, request, [&](Call& call) {
    return Receive<Result>(call, connection.options().max_answer_bytes);
  });
}

template <typename Result>
absl::StatusOr<Result> Ask(const Connection& connection, const Request& request,
                           const Destinations& destinations) {
  return Exchange(connection, request, [&](Call& call) {
    return Receive<Result>(call, destinations);
  });
}

template <typename Response>
absl::StatusOr<Response> Send(const Connection& connection,
                              const Request& request) {
  return Exchange(connection, request,
                  [](Call& call) { return ReceiveMessage<Response>(call); });
}

v1::TensorSpec FlatSpec(Source bytes) {
  v1::TensorSpec spec;
  spec.set_dtype(v1::DATA_TYPE_FLOAT32);
  spec.add_shape(std::ssize(bytes) / int64_t{sizeof(float)});
  return spec;
}

constexpr char kForward[] = "/backboned.v1.BackboneService/Forward";
constexpr char kBackward[] = "/backboned.v1.BackboneService/Backward";
constexpr char kGetParams[] = "/backboned.v1.BackboneService/GetParams";
constexpr char kSetParams[] = "/backboned.v1.BackboneService/SetParams";
constexpr char kGetGrads[] = "/backboned.v1.BackboneService/GetGrads";
constexpr char kSetGrads[] = "/backboned.v1.BackboneService/SetGrads";
constexpr char kGetBuffers[] = "/backboned.v1.BackboneService/GetBuffers";
constexpr char kSetBuffers[] = "/backboned.v1.BackboneService/SetBuffers";
constexpr char kTrainStep[] = "/backboned.v1.BackboneService/TrainStep";
constexpr char kGetOptimizerState[] =
    "/backboned.v1.BackboneService/GetOptimizerState";
constexpr char kSetOptimizerState[] =
    "/backboned.v1.BackboneService/SetOptimizerState";

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
  return Ask<v1::ForwardResult>(*connection_,
                                {kForward, SetName(std::move(header)), &input});
}

absl::StatusOr<v1::ForwardResult> Backbone::Forward(
    v1::ForwardHeader header, const Sources& input,
    Destinations destinations) const {
  return Ask<v1::ForwardResult>(*connection_,
                                {kForward, SetName(std::move(header)), &input},
                                destinations);
}

absl::StatusOr<Received<v1::BackwardResult>> Backbone::Backward(
    v1::BackwardHeader header, const Sources& gradients) const {
  return Ask<v1::BackwardResult>(
      *connection_, {kBackward, SetName(std::move(header)), &gradients});
}

absl::StatusOr<v1::BackwardResult> Backbone::Backward(
    v1::BackwardHeader header, const Sources& gradients,
    Destinations destinations) const {
  return Ask<v1::BackwardResult>(
      *connection_, {kBackward, SetName(std::move(header)), &gradients},
      destinations);
}

absl::StatusOr<Received<v1::TrainStepResult>> Backbone::TrainStep(
    v1::TrainStepHeader header, const Sources& batch) const {
  return Ask<v1::TrainStepResult>(
      *connection_, {kTrainStep, SetName(std::move(header)), &batch});
}

absl::StatusOr<v1::TrainStepResult> Backbone::TrainStep(
    v1::TrainStepHeader header, const Sources& batch,
    Destinations destinations) const {
  return Ask<v1::TrainStepResult>(
      *connection_, {kTrainStep, SetName(std::move(header)), &batch},
      destinations);
}

absl::StatusOr<v1::ReleaseTapesResponse> Backbone::ReleaseTapes(
    const std::vector<std::string>& tape_ids) const {
  v1::ReleaseTapesRequest request;
  request.mutable_tape_ids()->Assign(tape_ids.begin(), tape_ids.end());
  return connection_->Ask(connection_->backbones(),
                          &v1::BackboneService::Stub::ReleaseTapes, request);
}

absl::StatusOr<Received<v1::GetParamsResult>> Backbone::GetParams(
    v1::GetParamsRequest request) const {
  return Ask<v1::GetParamsResult>(*connection_,
                                  {kGetParams, SetName(std::move(request))});
}

absl::StatusOr<v1::GetParamsResult> Backbone::GetParams(
    v1::GetParamsRequest request, std::span<std::byte> destination) const {
  return Ask<v1::GetParamsResult>(
      *connection_, {kGetParams, SetName(std::move(request))}, {destination});
}

absl::StatusOr<v1::SetParamsResponse> Backbone::SetParams(
    Source params, v1::SetParamsHeader header) const {
  if (!header.has_spec()) *header.mutable_spec() = FlatSpec(params);
  const Sources sources = {params};
  return Send<v1::SetParamsResponse>(
      *connection_, {kSetParams, SetName(std::move(header)), &sources});
}

absl::StatusOr<Received<v1::GetGradsResult>> Backbone::GetGrads(
    v1::GetGradsRequest request) const {
  return Ask<v1::GetGradsResult>(*connection_,
                                 {kGetGrads, SetName(std::move(request))});
}

absl::StatusOr<v1::GetGradsResult> Backbone::GetGrads(
    v1::GetGradsRequest request, std::span<std::byte> destination) const {
  return Ask<v1::GetGradsResult>(
      *connection_, {kGetGrads, SetName(std::move(request))}, {destination});
}

absl::StatusOr<v1::SetGradsResponse> Backbone::SetGrads(
    Source grads, v1::SetGradsHeader header) const {
  if (!header.grads().has_spec()) {
    *header.mutable_grads()->mutable_spec() = FlatSpec(grads);
  }
  const Sources sources = {grads};
  return Send<v1::SetGradsResponse>(
      *connection_, {kSetGrads, SetName(std::move(header)), &sources});
}

absl::StatusOr<v1::ZeroGradsResponse> Backbone::ZeroGrads(
    v1::ZeroGradsRequest request) const {
  return connection_->Ask(connection_->backbones(),
                          &v1::BackboneService::Stub::ZeroGrads,
                          SetName(std::move(request)));
}

absl::StatusOr<Received<v1::GetBuffersResult>> Backbone::GetBuffers(
    v1::GetBuffersRequest request) const {
  return Ask<v1::GetBuffersResult>(*connection_,
                                   {kGetBuffers, SetName(std::move(request))});
}

absl::StatusOr<v1::GetBuffersResult> Backbone::GetBuffers(
    v1::GetBuffersRequest request, Destinations destinations) const {
  return Ask<v1::GetBuffersResult>(
      *connection_, {kGetBuffers, SetName(std::move(request))}, destinations);
}

absl::StatusOr<v1::SetBuffersResponse> Backbone::SetBuffers(
    v1::SetBuffersHeader header, const Sources& buffers) const {
  return Send<v1::SetBuffersResponse>(
      *connection_, {kSetBuffers, SetName(std::move(header)), &buffers});
}

absl::StatusOr<v1::ConfigureOptimizerResponse> Backbone::ConfigureOptimizer(
    v1::ConfigureOptimizerRequest request) const {
  return connection_->Ask(connection_->backbones(),
                          &v1::BackboneService::Stub::ConfigureOptimizer,
                          SetName(std::move(request)));
}

absl::StatusOr<v1::StepResponse> Backbone::Step(v1::StepRequest request) const {
  return connection_->Ask(connection_->backbones(),
                          &v1::BackboneService::Stub::Step,
                          SetName(std::move(request)));
}

absl::StatusOr<Received<v1::GetOptimizerStateResult>>
Backbone::GetOptimizerState(v1::GetOptimizerStateRequest request) const {
  return Ask<v1::GetOptimizerStateResult>(
      *connection_, {kGetOptimizerState, SetName(std::move(request))});
}

absl::StatusOr<v1::GetOptimizerStateResult> Backbone::GetOptimizerState(
    v1::GetOptimizerStateRequest request, Destinations destinations) const {
  return Ask<v1::GetOptimizerStateResult>(
      *connection_, {kGetOptimizerState, SetName(std::move(request))},
      destinations);
}

absl::StatusOr<v1::SetOptimizerStateResponse> Backbone::SetOptimizerState(
    v1::SetOptimizerStateHeader header, const Sources& tensors) const {
  return Send<v1::SetOptimizerStateResponse>(
      *connection_, {kSetOptimizerState, SetName(std::move(header)), &tensors});
}

absl::StatusOr<v1::ExtractResponse> Backbone::Extract(
    v1::ExtractRequest request) const {
  return connection_->Ask(connection_->backbones(),
                          &v1::BackboneService::Stub::Extract,
                          SetName(std::move(request)));
}

}  // namespace backboned::client
