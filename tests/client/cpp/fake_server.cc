#include "tests/client/cpp/fake_server.h"

#include <grpcpp/server_builder.h>

#include <cstdint>
#include <map>

#include "absl/strings/str_cat.h"
#include "client/cpp/announced.h"
#include "proto/wire/spec.h"

namespace backboned::client {
namespace {

constexpr size_t kChunkBytes = 1000;

// Returns the bytes that follow a header.
size_t AnnouncedBytes(const v1::CallsRequest& header) {
  int64_t bytes = 0;
  for (const v1::TensorSpec* spec : AnnouncedBy(header)) {
    bytes += wire::ByteSize(*spec).value();
  }
  return static_cast<size_t>(bytes);
}

// Sends the last part of a call.
void SendEnd(FakeBackbones::CallStream& stream, uint64_t call,
             const grpc::Status& status) {
  v1::CallsResponse part;
  part.set_call(call);
  part.mutable_status()->ParseFromString(status.error_details());
  part.mutable_status()->set_code(status.error_code());
  part.mutable_status()->set_message(status.error_message());
  stream.Write(part);
}

}  // namespace

std::string PlusOne(std::string bytes) {
  for (char& byte : bytes) ++byte;
  return bytes;
}

v1::TensorSpec ByteSpec(const std::string& bytes) {
  v1::TensorSpec spec;
  spec.set_dtype(v1::DATA_TYPE_UINT8);
  spec.add_shape(static_cast<int64_t>(bytes.size()));
  return spec;
}

grpc::Status FakeBackbones::Calls(grpc::ServerContext* context,
                                  CallStream* stream) {
  struct Upload {
    v1::CallsRequest header;
    std::string bytes;
  };
  std::map<uint64_t, Upload> uploads;
  v1::CallsRequest part;
  while (stream->Read(&part)) {
    if (part.header_case() != v1::CallsRequest::HEADER_NOT_SET) {
      const grpc::Status status = hook ? hook(*context) : grpc::Status::OK;
      if (status.ok()) {
        uploads[part.call()].header = part;
      } else {
        SendEnd(*stream, part.call(), status);
      }
    }
    const auto upload = uploads.find(part.call());
    if (upload == uploads.end()) continue;
    upload->second.bytes += part.chunk().data();
    if (upload->second.bytes.size() < AnnouncedBytes(upload->second.header)) {
      continue;
    }
    const bool breaks =
        !Answer(*stream, upload->second.header, upload->second.bytes);
    uploads.erase(upload);
    if (breaks) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
  }
  return grpc::Status::OK;
}

// Serves a call; returns the bytes of the answer.
std::string FakeBackbones::Serve(const v1::CallsRequest& request,
                                 const std::string& bytes,
                                 v1::CallsResponse& answer) {
  switch (request.header_case()) {
    case v1::CallsRequest::kForward:
      forward_header = request.forward();
      answer.mutable_forward()->set_tape_id("tape");
      *answer.mutable_forward()->add_outputs() = ByteSpec(bytes);
      *answer.mutable_forward()->add_buffers() = ByteSpec(buffers);
      return PlusOne(bytes) + buffers;
    case v1::CallsRequest::kBackward:
      backward_header = request.backward();
      *answer.mutable_backward()->mutable_grads()->mutable_spec() =
          ByteSpec(grads);
      *answer.mutable_backward()->add_input_grads() = ByteSpec(bytes);
      return grads + PlusOne(bytes);
    case v1::CallsRequest::kReleaseTapes:
      answer.mutable_release_tapes()->set_released_count(
          request.release_tapes().tape_ids_size());
      return "";
    case v1::CallsRequest::kGetParams:
      answer.mutable_get_params()->mutable_version()->set_uid(
          request.get_params().instance());
      *answer.mutable_get_params()->mutable_spec() = ByteSpec(params);
      return params;
    case v1::CallsRequest::kSetParams:
      set_params_header = request.set_params();
      params = bytes;
      answer.mutable_set_params()->mutable_version()->set_params(2);
      return "";
    case v1::CallsRequest::kGetGrads:
      *answer.mutable_get_grads()->mutable_grads()->mutable_spec() =
          ByteSpec(grads);
      return grads;
    case v1::CallsRequest::kSetGrads:
      grads = bytes;
      answer.mutable_set_grads();
      return "";
    case v1::CallsRequest::kZeroGrads:
      grads.clear();
      answer.mutable_zero_grads();
      return "";
    case v1::CallsRequest::kGetBuffers:
      answer.mutable_get_buffers();
      for (const char byte : buffers) {
        *answer.mutable_get_buffers()->add_buffers() = ByteSpec({byte});
      }
      return buffers;
    case v1::CallsRequest::kSetBuffers:
      buffers = bytes;
      answer.mutable_set_buffers();
      return "";
    default:
      return "";
  }
}

// Sends the result in its own part, then chunks of odd sizes, then the end;
// returns false if the stream is to break there.
bool FakeBackbones::Answer(CallStream& stream, const v1::CallsRequest& request,
                           const std::string& bytes) {
  v1::CallsResponse part;
  part.set_call(request.call());
  const std::string sent = Serve(request, bytes, part);
  stream.Write(part);
  for (size_t begin = 0; begin < sent.size(); begin += kChunkBytes) {
    part.Clear();
    part.set_call(request.call());
    part.mutable_chunk()->set_offset(static_cast<int64_t>(begin));
    part.mutable_chunk()->set_data(sent.substr(begin, kChunkBytes));
    damage(part);
    stream.Write(part);
  }
  if (breaks_now()) return false;
  SendEnd(stream, request.call(), end());
  return true;
}

grpc::Status FakeBackbones::Extract(grpc::ServerContext* /*context*/,
                                    const v1::ExtractRequest* request,
                                    v1::ExtractResponse* response) {
  response->set_instance(request->instance());
  response->set_data(PlusOne(request->data()));
  return grpc::Status::OK;
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

FakeServer::FakeServer(
    const std::shared_ptr<grpc::ServerCredentials>& credentials) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", credentials, &port_);
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
