#include "tests/server/rpc/plain_client.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "backboned/v1/backbone_service.grpc.pb.h"
#include "backboned/v1/instance_service.grpc.pb.h"

namespace backboned {
namespace {

// Cuts a stream into up to nine chunks.
template <typename Request, typename Header, typename Writer>
void Send(Writer& writer, const Header& header, std::string_view bytes) {
  const size_t chunk_bytes = std::max<size_t>(24, bytes.size() / 8);
  Request request;
  *request.mutable_header() = header;
  size_t offset = 0;
  do {
    const std::string_view data = bytes.substr(offset, chunk_bytes);
    request.mutable_chunk()->set_offset(static_cast<int64_t>(offset));
    request.mutable_chunk()->set_data(std::string(data));
    if (!writer.Write(request)) return;  // Finish() returns why.
    request.Clear();
    offset += data.size();
  } while (offset < bytes.size());
}

template <typename Response, typename Reader>
auto Receive(Reader& reader)
    -> absl::StatusOr<Streamed<std::decay_t<decltype(Response().header())>>> {
  Streamed<std::decay_t<decltype(Response().header())>> answer;
  Response response;
  bool is_first = true;
  std::string mistake;
  while (reader.Read(&response)) {
    if (response.has_header() != is_first) mistake = "misplaced header";
    if (is_first) answer.header = response.header();
    is_first = false;
    if (!response.has_chunk()) continue;
    if (response.chunk().offset() !=
        static_cast<int64_t>(answer.bytes.size())) {
      mistake = "misplaced chunk";
    }
    answer.bytes += response.chunk().data();
  }
  const grpc::Status status = reader.Finish();
  if (!status.ok()) return client::ToStatus(status);
  if (is_first) mistake = "no answer";
  if (!mistake.empty()) return absl::InternalError(mistake);
  return answer;
}

template <typename Message>
Message SetName(Message message) {
  if (message.instance().empty()) message.set_instance("fake");
  return message;
}

}  // namespace

struct PlainClient::Stubs {
  std::unique_ptr<v1::BackboneService::Stub> backbones;
  std::unique_ptr<v1::InstanceService::Stub> instances;
  std::string session;

  void Prepare(grpc::ClientContext& context) const {
    if (!session.empty()) context.AddMetadata("backboned-session", session);
  }

  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Ask(
      Stub& stub,
      grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                   Response*),
      const Request& request) const {
    grpc::ClientContext context;
    Prepare(context);
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return client::ToStatus(status);
    return response;
  }

  // A method with a streamed request and one message as answer.
  template <typename Request, typename Response, typename Header>
  absl::StatusOr<Response> Upload(
      std::unique_ptr<grpc::ClientWriter<Request>> (
          v1::BackboneService::Stub::*method)(grpc::ClientContext*, Response*),
      const Header& header, std::string_view bytes) const {
    grpc::ClientContext context;
    Prepare(context);
    Response response;
    const auto writer = ((*backbones).*method)(&context, &response);
    Send<Request>(*writer, header, bytes);
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    if (!status.ok()) return client::ToStatus(status);
    return response;
  }
};

PlainClient::PlainClient(const std::shared_ptr<grpc::Channel>& channel,
                         std::string session)
    : stubs_(std::make_unique<Stubs>()) {
  stubs_->backbones = v1::BackboneService::NewStub(channel);
  stubs_->instances = v1::InstanceService::NewStub(channel);
  stubs_->session = std::move(session);
}

PlainClient::PlainClient(const TestServer& server, std::string session)
    : PlainClient(server.channel(), std::move(session)) {}

PlainClient::PlainClient(PlainClient&& other) noexcept = default;
PlainClient& PlainClient::operator=(PlainClient&& other) noexcept = default;
PlainClient::~PlainClient() = default;

absl::StatusOr<Streamed<v1::ForwardResult>> PlainClient::Forward(
    v1::ForwardHeader header, std::string_view bytes) {
  grpc::ClientContext context;
  stubs_->Prepare(context);
  const auto stream = stubs_->backbones->Forward(&context);
  Send<v1::ForwardRequest>(*stream, SetName(std::move(header)), bytes);
  stream->WritesDone();
  return Receive<v1::ForwardResponse>(*stream);
}

absl::StatusOr<Streamed<v1::BackwardResult>> PlainClient::Backward(
    v1::BackwardHeader header, std::string_view bytes) {
  grpc::ClientContext context;
  stubs_->Prepare(context);
  const auto stream = stubs_->backbones->Backward(&context);
  Send<v1::BackwardRequest>(*stream, SetName(std::move(header)), bytes);
  stream->WritesDone();
  return Receive<v1::BackwardResponse>(*stream);
}

absl::StatusOr<v1::ReleaseTapesResponse> PlainClient::ReleaseTapes(
    const v1::ReleaseTapesRequest& request) {
  return stubs_->Ask(*stubs_->backbones,
                     &v1::BackboneService::Stub::ReleaseTapes, request);
}

absl::StatusOr<Streamed<v1::GetParamsResult>> PlainClient::GetParams(
    v1::GetParamsRequest request) {
  grpc::ClientContext context;
  stubs_->Prepare(context);
  const auto reader =
      stubs_->backbones->GetParams(&context, SetName(std::move(request)));
  return Receive<v1::GetParamsResponse>(*reader);
}

absl::StatusOr<v1::SetParamsResponse> PlainClient::SetParams(
    v1::SetParamsHeader header, std::string_view bytes) {
  return stubs_->Upload(&v1::BackboneService::Stub::SetParams,
                        SetName(std::move(header)), bytes);
}

absl::StatusOr<Streamed<v1::GetGradsResult>> PlainClient::GetGrads(
    v1::GetGradsRequest request) {
  grpc::ClientContext context;
  stubs_->Prepare(context);
  const auto reader =
      stubs_->backbones->GetGrads(&context, SetName(std::move(request)));
  return Receive<v1::GetGradsResponse>(*reader);
}

absl::StatusOr<v1::SetGradsResponse> PlainClient::SetGrads(
    v1::SetGradsHeader header, std::string_view bytes) {
  return stubs_->Upload(&v1::BackboneService::Stub::SetGrads,
                        SetName(std::move(header)), bytes);
}

absl::StatusOr<v1::ZeroGradsResponse> PlainClient::ZeroGrads(
    v1::ZeroGradsRequest request) {
  return stubs_->Ask(*stubs_->backbones, &v1::BackboneService::Stub::ZeroGrads,
                     SetName(std::move(request)));
}

absl::StatusOr<Streamed<v1::GetBuffersResult>> PlainClient::GetBuffers(
    v1::GetBuffersRequest request) {
  grpc::ClientContext context;
  stubs_->Prepare(context);
  const auto reader =
      stubs_->backbones->GetBuffers(&context, SetName(std::move(request)));
  return Receive<v1::GetBuffersResponse>(*reader);
}

absl::StatusOr<v1::SetBuffersResponse> PlainClient::SetBuffers(
    v1::SetBuffersHeader header, std::string_view bytes) {
  return stubs_->Upload(&v1::BackboneService::Stub::SetBuffers,
                        SetName(std::move(header)), bytes);
}

absl::StatusOr<v1::ConfigureOptimizerResponse> PlainClient::ConfigureOptimizer(
    v1::ConfigureOptimizerRequest request) {
  return stubs_->Ask(*stubs_->backbones,
                     &v1::BackboneService::Stub::ConfigureOptimizer,
                     SetName(std::move(request)));
}

absl::StatusOr<v1::StepResponse> PlainClient::Step(v1::StepRequest request) {
  return stubs_->Ask(*stubs_->backbones, &v1::BackboneService::Stub::Step,
                     SetName(std::move(request)));
}

absl::StatusOr<Streamed<v1::GetOptimizerStateResult>>
PlainClient::GetOptimizerState(v1::GetOptimizerStateRequest request) {
  grpc::ClientContext context;
  stubs_->Prepare(context);
  const auto reader = stubs_->backbones->GetOptimizerState(
      &context, SetName(std::move(request)));
  return Receive<v1::GetOptimizerStateResponse>(*reader);
}

absl::StatusOr<v1::SetOptimizerStateResponse> PlainClient::SetOptimizerState(
    v1::SetOptimizerStateHeader header, std::string_view bytes) {
  return stubs_->Upload(&v1::BackboneService::Stub::SetOptimizerState,
                        SetName(std::move(header)), bytes);
}

absl::StatusOr<Streamed<v1::TrainStepResult>> PlainClient::TrainStep(
    v1::TrainStepHeader header, std::string_view bytes) {
  grpc::ClientContext context;
  stubs_->Prepare(context);
  const auto stream = stubs_->backbones->TrainStep(&context);
  Send<v1::TrainStepRequest>(*stream, SetName(std::move(header)), bytes);
  stream->WritesDone();
  return Receive<v1::TrainStepResponse>(*stream);
}

absl::StatusOr<v1::ExtractResponse> PlainClient::Extract(
    v1::ExtractRequest request) {
  return stubs_->Ask(*stubs_->backbones, &v1::BackboneService::Stub::Extract,
                     SetName(std::move(request)));
}

absl::StatusOr<v1::GetServerResponse> PlainClient::GetServer() {
  return stubs_->Ask(*stubs_->instances, &v1::InstanceService::Stub::GetServer,
                     v1::GetServerRequest());
}

absl::StatusOr<v1::ListArchitecturesResponse> PlainClient::ListArchitectures(
    const v1::ListArchitecturesRequest& request) {
  return stubs_->Ask(*stubs_->instances,
                     &v1::InstanceService::Stub::ListArchitectures, request);
}

absl::StatusOr<v1::ListBenchmarksResponse> PlainClient::ListBenchmarks(
    const v1::ListBenchmarksRequest& request) {
  return stubs_->Ask(*stubs_->instances,
                     &v1::InstanceService::Stub::ListBenchmarks, request);
}

absl::StatusOr<v1::CreateInstanceResponse> PlainClient::CreateInstance(
    const v1::CreateInstanceRequest& request) {
  return stubs_->Ask(*stubs_->instances,
                     &v1::InstanceService::Stub::CreateInstance, request);
}

absl::StatusOr<v1::CloneInstanceResponse> PlainClient::CloneInstance(
    const v1::CloneInstanceRequest& request) {
  return stubs_->Ask(*stubs_->instances,
                     &v1::InstanceService::Stub::CloneInstance, request);
}

absl::StatusOr<v1::UpdateInstanceResponse> PlainClient::UpdateInstance(
    const v1::UpdateInstanceRequest& request) {
  return stubs_->Ask(*stubs_->instances,
                     &v1::InstanceService::Stub::UpdateInstance, request);
}

absl::StatusOr<v1::GetInstanceResponse> PlainClient::GetInstance(
    v1::GetInstanceRequest request) {
  return stubs_->Ask(*stubs_->instances,
                     &v1::InstanceService::Stub::GetInstance,
                     SetName(std::move(request)));
}

absl::StatusOr<v1::ListInstancesResponse> PlainClient::ListInstances(
    const v1::ListInstancesRequest& request) {
  return stubs_->Ask(*stubs_->instances,
                     &v1::InstanceService::Stub::ListInstances, request);
}

absl::StatusOr<v1::DeleteInstanceResponse> PlainClient::DeleteInstance(
    v1::DeleteInstanceRequest request) {
  return stubs_->Ask(*stubs_->instances,
                     &v1::InstanceService::Stub::DeleteInstance,
                     SetName(std::move(request)));
}

absl::StatusOr<v1::ListUsageResponse> PlainClient::ListUsage(
    const v1::ListUsageRequest& request) {
  return stubs_->Ask(*stubs_->instances, &v1::InstanceService::Stub::ListUsage,
                     request);
}

v1::TensorSpec FloatSpec(const std::vector<int64_t>& shape,
                         const std::string& name) {
  v1::TensorSpec spec;
  spec.set_name(name);
  spec.set_dtype(v1::DATA_TYPE_FLOAT32);
  spec.mutable_shape()->Assign(shape.begin(), shape.end());
  return spec;
}

v1::ForwardHeader ForwardOf(int64_t rows, int64_t size) {
  v1::ForwardHeader header;
  header.set_instance("fake");
  header.add_outputs("out");
  *header.add_inputs() = FloatSpec({rows, size});
  return header;
}

v1::ForwardHeader TapedForwardOf(int64_t rows, int64_t size) {
  v1::ForwardHeader header = ForwardOf(rows, size);
  header.set_tape(true);
  return header;
}

v1::BackwardHeader BackwardOf(const std::string& tape_id, int64_t rows,
                              int64_t size) {
  v1::BackwardHeader header;
  header.set_instance("fake");
  v1::TapeGradients& tape = *header.add_tapes();
  tape.set_tape_id(tape_id);
  *tape.add_gradients() = FloatSpec({rows, size}, "out");
  return header;
}

v1::SetParamsHeader SetParamsOf(int64_t elements) {
  v1::SetParamsHeader header;
  header.set_instance("fake");
  *header.mutable_spec() = FloatSpec({elements});
  return header;
}

v1::Version VersionOf(const TestServer& server) {
  return PlainClient(server).GetInstance()->instance().version();
}

std::vector<float> Ascending(size_t count, float first) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), first);
  return values;
}

std::string Ones(int64_t elements) {
  return Bytes(std::vector<float>(static_cast<size_t>(elements), 1));
}

std::string Zeros(int64_t bytes) {
  return std::string(static_cast<size_t>(bytes), '\0');
}

}  // namespace backboned
