#include "client/cpp/backbone.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/call.h"
#include "proto/wire/spec.h"

namespace backboned::client {
namespace {

using Specs = std::vector<v1::TensorSpec>;

// The tensors that a header announces, in the order of their bytes.
Specs SpecsOf(const v1::ForwardResult& result) {
  Specs specs(result.outputs().begin(), result.outputs().end());
  specs.insert(specs.end(), result.buffers().begin(), result.buffers().end());
  return specs;
}

Specs SpecsOf(const v1::BackwardResult& result) {
  Specs specs;
  if (result.has_grads()) specs.push_back(result.grads().spec());
  specs.insert(specs.end(), result.input_grads().begin(),
               result.input_grads().end());
  return specs;
}

Specs SpecsOf(const v1::GetParamsResult& result) { return {result.spec()}; }

Specs SpecsOf(const v1::GetGradsResult& result) {
  return {result.grads().spec()};
}

Specs SpecsOf(const v1::GetBuffersResult& result) {
  return {result.buffers().begin(), result.buffers().end()};
}

// The header of an answer, and the bytes of each tensor that it announces,
// whose sum is an int64 too.
template <typename Result>
absl::StatusOr<std::vector<int64_t>> ParseResult(const wire::Message& first,
                                                 Result& result) {
  const absl::Status parsed = first.ParseHeader(result);
  if (!parsed.ok()) return absl::InternalError(parsed.message());
  std::vector<int64_t> sizes_bytes;
  int64_t total = 0;
  for (const v1::TensorSpec& spec : SpecsOf(result)) {
    const absl::StatusOr<int64_t> bytes = wire::ByteSize(spec);
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

}  // namespace

Backbone::Backbone(std::shared_ptr<const Connection> connection,
                   std::string name)
    : connection_(std::move(connection)), name_(std::move(name)) {}

absl::StatusOr<Received<v1::ForwardResult>> Backbone::Forward(
    v1::ForwardHeader header, Source input) const {
  header.set_instance(name_);
  Call call(*connection_, kForward);
  call.SendTensors(header, {input});
  return Receive<v1::ForwardResult>(call,
                                    connection_->options().max_answer_bytes);
}

absl::StatusOr<v1::ForwardResult> Backbone::Forward(
    v1::ForwardHeader header, Source input, Destinations destinations) const {
  header.set_instance(name_);
  Call call(*connection_, kForward);
  call.SendTensors(header, {input});
  return Receive<v1::ForwardResult>(call, std::move(destinations));
}

absl::StatusOr<Received<v1::BackwardResult>> Backbone::Backward(
    v1::BackwardHeader header, const std::vector<Source>& gradients) const {
  header.set_instance(name_);
  Call call(*connection_, kBackward);
  call.SendTensors(header, gradients);
  return Receive<v1::BackwardResult>(call,
                                     connection_->options().max_answer_bytes);
}

absl::StatusOr<v1::BackwardResult> Backbone::Backward(
    v1::BackwardHeader header, const std::vector<Source>& gradients,
    Destinations destinations) const {
  header.set_instance(name_);
  Call call(*connection_, kBackward);
  call.SendTensors(header, gradients);
  return Receive<v1::BackwardResult>(call, std::move(destinations));
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
  request.set_instance(name_);
  Call call(*connection_, kGetParams);
  call.SendMessage(request);
  return Receive<v1::GetParamsResult>(call,
                                      connection_->options().max_answer_bytes);
}

absl::StatusOr<v1::GetParamsResult> Backbone::GetParams(
    v1::GetParamsRequest request, std::span<std::byte> destination) const {
  request.set_instance(name_);
  Call call(*connection_, kGetParams);
  call.SendMessage(request);
  return Receive<v1::GetParamsResult>(call, {destination});
}

absl::StatusOr<v1::SetParamsResponse> Backbone::SetParams(
    Source params, v1::SetParamsHeader header) const {
  header.set_instance(name_);
  if (!header.has_spec()) *header.mutable_spec() = FlatSpec(params);
  Call call(*connection_, kSetParams);
  call.SendTensors(header, {params});
  return ReceiveMessage<v1::SetParamsResponse>(call);
}

absl::StatusOr<Received<v1::GetGradsResult>> Backbone::GetGrads(
    v1::GetGradsRequest request) const {
  request.set_instance(name_);
  Call call(*connection_, kGetGrads);
  call.SendMessage(request);
  return Receive<v1::GetGradsResult>(call,
                                     connection_->options().max_answer_bytes);
}

absl::StatusOr<v1::GetGradsResult> Backbone::GetGrads(
    v1::GetGradsRequest request, std::span<std::byte> destination) const {
  request.set_instance(name_);
  Call call(*connection_, kGetGrads);
  call.SendMessage(request);
  return Receive<v1::GetGradsResult>(call, {destination});
}

absl::StatusOr<v1::SetGradsResponse> Backbone::SetGrads(
    Source grads, v1::SetGradsHeader header) const {
  header.set_instance(name_);
  if (!header.grads().has_spec()) {
    *header.mutable_grads()->mutable_spec() = FlatSpec(grads);
  }
  Call call(*connection_, kSetGrads);
  call.SendTensors(header, {grads});
  return ReceiveMessage<v1::SetGradsResponse>(call);
}

absl::StatusOr<v1::ZeroGradsResponse> Backbone::ZeroGrads(
    v1::ZeroGradsRequest request) const {
  request.set_instance(name_);
  return connection_->Ask(connection_->backbones(),
                          &v1::BackboneService::Stub::ZeroGrads, request);
}

absl::StatusOr<Received<v1::GetBuffersResult>> Backbone::GetBuffers(
    v1::GetBuffersRequest request) const {
  request.set_instance(name_);
  Call call(*connection_, kGetBuffers);
  call.SendMessage(request);
  return Receive<v1::GetBuffersResult>(call,
                                       connection_->options().max_answer_bytes);
}

absl::StatusOr<v1::GetBuffersResult> Backbone::GetBuffers(
    v1::GetBuffersRequest request, Destinations destinations) const {
  request.set_instance(name_);
  Call call(*connection_, kGetBuffers);
  call.SendMessage(request);
  return Receive<v1::GetBuffersResult>(call, std::move(destinations));
}

absl::StatusOr<v1::SetBuffersResponse> Backbone::SetBuffers(
    v1::SetBuffersHeader header, const std::vector<Source>& buffers) const {
  header.set_instance(name_);
  Call call(*connection_, kSetBuffers);
  call.SendTensors(header, buffers);
  return ReceiveMessage<v1::SetBuffersResponse>(call);
}

absl::StatusOr<v1::ExtractResponse> Backbone::Extract(
    v1::ExtractRequest request) const {
  request.set_instance(name_);
  return connection_->Ask(connection_->backbones(),
                          &v1::BackboneService::Stub::Extract, request);
}

}  // namespace backboned::client
