#include "tests/client/cpp/recording_server.h"

#include <grpcpp/impl/rpc_service_method.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/method_handler.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "backboned/v1/backbone_service.pb.h"
#include "backboned/v1/instance_service.pb.h"
#include "proto/wire/unary.h"

namespace backboned::client {
namespace {

using google::protobuf::Message;
using google::protobuf::MethodDescriptor;
using google::protobuf::ServiceDescriptor;

std::vector<const ServiceDescriptor*> Services() {
  return {v1::GetServerRequest::descriptor()->file()->service(0),
          v1::ForwardRequest::descriptor()->file()->service(0)};
}

std::unique_ptr<Message> NewInput(const MethodDescriptor& method) {
  return std::unique_ptr<Message>(
      google::protobuf::MessageFactory::generated_factory()
          ->GetPrototype(method.input_type())
          ->New());
}

// Returns the method whose header a part has, and its request with that header.
RecordingServer::Attempt AttemptOf(const v1::CallsRequest& part,
                                   const google::protobuf::FieldDescriptor& f) {
  std::string name = f.camelcase_name();
  name[0] = absl::ascii_toupper(name[0]);
  const MethodDescriptor& method =
      *part.GetDescriptor()->file()->service(0)->FindMethodByName(name);
  RecordingServer::Attempt attempt = {.method = &method,
                                      .message = NewInput(method)};
  Message* header = attempt.message.get();
  if (method.client_streaming()) {
    header = header->GetReflection()->MutableMessage(
        header, header->GetDescriptor()->FindFieldByName("header"));
  }
  header->CopyFrom(part.GetReflection()->GetMessage(part, &f));
  return attempt;
}

// Returns the message that has the request id: a stream's header is inside of
// its first message.
const Message& HeaderOf(const MethodDescriptor& method, const Message& first) {
  if (!method.client_streaming()) return first;
  return first.GetReflection()->GetMessage(
      first, first.GetDescriptor()->FindFieldByName("header"));
}

}  // namespace

std::vector<const MethodDescriptor*> MethodsOfTheContract() {
  std::vector<const MethodDescriptor*> methods;
  for (const ServiceDescriptor* service : Services()) {
    for (int i = 0; i < service->method_count(); ++i) {
      if (service->method(i)->name() == "Calls") continue;
      methods.push_back(service->method(i));
    }
  }
  return methods;
}

std::string RecordingServer::Attempt::request_id() const {
  const Message& header = HeaderOf(*method, *message);
  const auto* field = header.GetDescriptor()->FindFieldByName("request_id");
  if (field == nullptr) return "";
  return header.GetReflection()->GetString(header, field);
}

class RecordingServer::Service : public grpc::Service {
 public:
  using Bidi = grpc::internal::BidiStreamingHandler<Service, grpc::ByteBuffer,
                                                    grpc::ByteBuffer>;

  Service(const ServiceDescriptor& service, RecordingServer& owner) {
    for (int i = 0; i < service.method_count(); ++i) {
      const MethodDescriptor* method = service.method(i);
      paths_.push_back(
          absl::StrCat("/", service.full_name(), "/", method->name()));
      const auto serve = [method, &owner](Service*, grpc::ServerContext*,
                                          Stream* stream) {
        return Serve(*method, *stream, owner);
      };
      AddMethod(new grpc::internal::RpcServiceMethod(
          paths_.back().c_str(), grpc::internal::RpcMethod::BIDI_STREAMING,
          new Bidi(serve, this)));
    }
  }

 private:
  static grpc::Status Serve(const MethodDescriptor& method, Stream& stream,
                            RecordingServer& owner) {
    if (method.name() == "Calls") return owner.NoteCalls(stream);
    Attempt attempt = {.method = &method, .message = NewInput(method)};
    grpc::ByteBuffer buffer;
    if (!stream.Read(&buffer) || !wire::Parse(buffer, *attempt.message).ok()) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no message");
    }
    return owner.Note(std::move(attempt));
  }

  std::deque<std::string> paths_;  // gRPC keeps pointers to them.
};

RecordingServer::RecordingServer() {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                           &port_);
  for (const ServiceDescriptor* service : Services()) {
    services_.push_back(std::make_unique<Service>(*service, *this));
    builder.RegisterService(services_.back().get());
  }
  server_ = builder.BuildAndStart();
}

RecordingServer::~RecordingServer() { server_->Shutdown(); }

std::string RecordingServer::target() const {
  return absl::StrCat("127.0.0.1:", port_);
}

void RecordingServer::EndWith(std::deque<grpc::Status> statuses) {
  absl::MutexLock lock(&mutex_);
  statuses_ = std::move(statuses);
}

std::vector<RecordingServer::Attempt> RecordingServer::Take() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(attempts_, {});
}

grpc::Status RecordingServer::Note(Attempt attempt) {
  absl::MutexLock lock(&mutex_);
  attempts_.push_back(std::move(attempt));
  if (statuses_.empty()) {
    return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "only noted");
  }
  grpc::Status status = std::move(statuses_.front());
  statuses_.pop_front();
  return status;
}

// Answers each call of a stream of calls with its status.
grpc::Status RecordingServer::NoteCalls(Stream& stream) {
  const auto* const headers =
      v1::CallsRequest::descriptor()->FindOneofByName("header");
  grpc::ByteBuffer buffer;
  v1::CallsRequest part;
  while (stream.Read(&buffer) && wire::Parse(buffer, part).ok()) {
    const auto* const field =
        part.GetReflection()->GetOneofFieldDescriptor(part, headers);
    if (field == nullptr) continue;
    const grpc::Status status = Note(AttemptOf(part, *field));
    v1::CallsResponse answer;
    answer.set_call(part.call());
    answer.mutable_status()->ParseFromString(status.error_details());
    answer.mutable_status()->set_code(status.error_code());
    answer.mutable_status()->set_message(status.error_message());
    stream.Write(wire::Serialize(answer));
  }
  return grpc::Status::OK;
}

}  // namespace backboned::client
