#include "tests/client/cpp/fake_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include "absl/strings/str_cat.h"

namespace backboned::client {
namespace {

constexpr size_t kChunkBytes = 1000;

// Reads a stream to its end: a header, and the data of all chunks.
template <typename Request, typename Header, typename Stream>
std::string ReadAll(Stream& stream, Header& header) {
  std::string bytes;
  Request request;
  while (stream.Read(&request)) {
    if (request.has_header()) header = request.header();
    bytes += request.chunk().data();
  }
  return bytes;
}

// Sends a header in its own message, then chunks of odd sizes.
template <typename Response, typename Stream, typename Header>
void WriteAll(Stream& stream, const Header& header, const std::string& bytes,
              const std::function<void(Response&)>& damage = {}) {
  Response first;
  *first.mutable_header() = header;
  stream.Write(first);
  for (size_t begin = 0; begin < bytes.size(); begin += kChunkBytes) {
    Response response;
    response.mutable_chunk()->set_offset(static_cast<int64_t>(begin));
    response.mutable_chunk()->set_data(bytes.substr(begin, kChunkBytes));
    if (damage) damage(response);
    if (!stream.Write(response)) return;
  }
}

void Describe(v1::TensorSpec& spec, const std::string& bytes) {
  spec.set_dtype(v1::DATA_TYPE_UINT8);
  spec.add_shape(static_cast<int64_t>(bytes.size()));
}

}  // namespace

std::string PlusOne(std::string bytes) {
  for (char& byte : bytes) ++byte;
  return bytes;
}

grpc::Status FakeBackbones::RunHook(grpc::ServerContext* context) {
  return hook ? hook(*context) : grpc::Status::OK;
}

grpc::Status FakeBackbones::Forward(grpc::ServerContext* context,
                                    ForwardStream* stream) {
  if (grpc::Status status = RunHook(context); !status.ok()) return status;
  const std::string out =
      PlusOne(ReadAll<v1::ForwardRequest>(*stream, forward_header));
  v1::ForwardResult result;
  result.set_tape_id("tape");
  Describe(*result.add_outputs(), out);
  Describe(*result.add_buffers(), buffers);
  WriteAll<v1::ForwardResponse>(*stream, result, out + buffers);
  return grpc::Status::OK;
}

grpc::Status FakeBackbones::Backward(grpc::ServerContext* context,
                                     BackwardStream* stream) {
  if (grpc::Status status = RunHook(context); !status.ok()) return status;
  const std::string input_grad =
      PlusOne(ReadAll<v1::BackwardRequest>(*stream, backward_header));
  v1::BackwardResult result;
  Describe(*result.mutable_grads()->mutable_spec(), grads);
  Describe(*result.add_input_grads(), input_grad);
  WriteAll<v1::BackwardResponse>(*stream, result, grads + input_grad);
  return grpc::Status::OK;
}

grpc::Status FakeBackbones::ReleaseTapes(grpc::ServerContext* context,
                                         const v1::ReleaseTapesRequest* request,
                                         v1::ReleaseTapesResponse* response) {
  response->set_released_count(request->tape_ids_size());
  return RunHook(context);
}

grpc::Status FakeBackbones::GetParams(
    grpc::ServerContext* context, const v1::GetParamsRequest* request,
    grpc::ServerWriter<v1::GetParamsResponse>* writer) {
  if (grpc::Status status = RunHook(context); !status.ok()) return status;
  v1::GetParamsResult result;
  result.mutable_version()->set_uid(request->instance());
  Describe(*result.mutable_spec(), params);
  WriteAll<v1::GetParamsResponse>(*writer, result, params, damage);
  return end();
}

grpc::Status FakeBackbones::SetParams(
    grpc::ServerContext* context,
    grpc::ServerReader<v1::SetParamsRequest>* reader,
    v1::SetParamsResponse* response) {
  if (grpc::Status status = RunHook(context); !status.ok()) return status;
  params = ReadAll<v1::SetParamsRequest>(*reader, set_params_header);
  response->mutable_version()->set_params(2);
  return grpc::Status::OK;
}

grpc::Status FakeBackbones::GetGrads(
    grpc::ServerContext* context, const v1::GetGradsRequest* /*request*/,
    grpc::ServerWriter<v1::GetGradsResponse>* writer) {
  if (grpc::Status status = RunHook(context); !status.ok()) return status;
  v1::GetGradsResult result;
  Describe(*result.mutable_grads()->mutable_spec(), grads);
  WriteAll<v1::GetGradsResponse>(*writer, result, grads);
  return grpc::Status::OK;
}

grpc::Status FakeBackbones::SetGrads(
    grpc::ServerContext* context,
    grpc::ServerReader<v1::SetGradsRequest>* reader,
    v1::SetGradsResponse* /*response*/) {
  if (grpc::Status status = RunHook(context); !status.ok()) return status;
  v1::SetGradsHeader header;
  grads = ReadAll<v1::SetGradsRequest>(*reader, header);
  return grpc::Status::OK;
}

grpc::Status FakeBackbones::ZeroGrads(grpc::ServerContext* context,
                                      const v1::ZeroGradsRequest* /*request*/,
                                      v1::ZeroGradsResponse* /*response*/) {
  grads.clear();
  return RunHook(context);
}

grpc::Status FakeBackbones::GetBuffers(
    grpc::ServerContext* context, const v1::GetBuffersRequest* /*request*/,
    grpc::ServerWriter<v1::GetBuffersResponse>* writer) {
  if (grpc::Status status = RunHook(context); !status.ok()) return status;
  v1::GetBuffersResult result;
  for (const char byte : buffers) Describe(*result.add_buffers(), {byte});
  WriteAll<v1::GetBuffersResponse>(*writer, result, buffers);
  return grpc::Status::OK;
}

grpc::Status FakeBackbones::SetBuffers(
    grpc::ServerContext* context,
    grpc::ServerReader<v1::SetBuffersRequest>* reader,
    v1::SetBuffersResponse* /*response*/) {
  if (grpc::Status status = RunHook(context); !status.ok()) return status;
  v1::SetBuffersHeader header;
  buffers = ReadAll<v1::SetBuffersRequest>(*reader, header);
  return grpc::Status::OK;
}

grpc::Status FakeBackbones::Extract(grpc::ServerContext* context,
                                    const v1::ExtractRequest* request,
                                    v1::ExtractResponse* response) {
  response->set_instance(request->instance());
  response->set_data(PlusOne(request->data()));
  return RunHook(context);
}

grpc::Status FakeInstances::GetServer(grpc::ServerContext* context,
                                      const v1::GetServerRequest* /*request*/,
                                      v1::GetServerResponse* response) {
  metadata.clear();
  for (const auto& [key, value] : context->client_metadata()) {
    metadata.emplace(std::string(key.data(), key.size()),
                     std::string(value.data(), value.size()));
  }
  response->set_version("fake");
  return grpc::Status::OK;
}

grpc::Status FakeInstances::CreateInstance(
    grpc::ServerContext* /*context*/, const v1::CreateInstanceRequest* request,
    v1::CreateInstanceResponse* response) {
  response->mutable_instance()->set_name(request->name());
  return grpc::Status::OK;
}

grpc::Status FakeInstances::CloneInstance(
    grpc::ServerContext* /*context*/, const v1::CloneInstanceRequest* request,
    v1::CloneInstanceResponse* response) {
  response->mutable_instance()->set_name(request->instance() + "-clone");
  return grpc::Status::OK;
}

grpc::Status FakeInstances::GetInstance(grpc::ServerContext* /*context*/,
                                        const v1::GetInstanceRequest* request,
                                        v1::GetInstanceResponse* response) {
  if (request->instance() != "net") {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such instance");
  }
  response->mutable_instance()->set_name("net");
  return grpc::Status::OK;
}

grpc::Status FakeInstances::ListInstances(
    grpc::ServerContext* /*context*/,
    const v1::ListInstancesRequest* /*request*/,
    v1::ListInstancesResponse* response) {
  response->add_instances()->set_name("net");
  return grpc::Status::OK;
}

grpc::Status FakeInstances::DeleteInstance(
    grpc::ServerContext* /*context*/, const v1::DeleteInstanceRequest* request,
    v1::DeleteInstanceResponse* /*response*/) {
  return request->instance() == "net"
             ? grpc::Status::OK
             : grpc::Status(grpc::StatusCode::NOT_FOUND, "no such instance");
}

FakeServer::FakeServer() {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port_);
  builder.RegisterService(&backbones);
  builder.RegisterService(&instances);
  server_ = builder.BuildAndStart();
}

FakeServer::~FakeServer() { server_->Shutdown(); }

std::string FakeServer::target() const {
  return absl::StrCat("127.0.0.1:", port_);
}

grpc::Status ErrorOf(grpc::StatusCode code, const std::string& message,
                     const v1::ErrorDetail& detail) {
  v1::StatusDetails details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(detail);
  return grpc::Status(code, message, details.SerializeAsString());
}

}  // namespace backboned::client
