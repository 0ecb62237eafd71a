#include "server/rpc/standard/reflection_service.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/support/status.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "server/rpc/transport/status.h"

namespace backboned::rpc {
namespace {

using ::grpc::reflection::v1alpha::ExtensionRequest;
using ::grpc::reflection::v1alpha::ServerReflectionRequest;
using ::grpc::reflection::v1alpha::ServerReflectionResponse;

namespace pb = google::protobuf;

// The files that a stream has had.
using Known = std::set<const pb::FileDescriptor*>;

const pb::DescriptorPool& Pool() {
  return *pb::DescriptorPool::generated_pool();
}

const pb::FileDescriptor* FindExtension(const ExtensionRequest& request) {
  const pb::Descriptor* const type =
      Pool().FindMessageTypeByName(request.containing_type());
  const pb::FieldDescriptor* const extension =
      type == nullptr
          ? nullptr
          : Pool().FindExtensionByNumber(type, request.extension_number());
  return extension == nullptr ? nullptr : extension->file();
}

// Returns the file that a request asks for; null: there is none.
const pb::FileDescriptor* FindFile(const ServerReflectionRequest& request) {
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kFileByFilename:
      return Pool().FindFileByName(request.file_by_filename());
    case ServerReflectionRequest::kFileContainingSymbol:
      return Pool().FindFileContainingSymbol(request.file_containing_symbol());
    case ServerReflectionRequest::kFileContainingExtension:
      return FindExtension(request.file_containing_extension());
    default:
      return nullptr;
  }
}

void SetError(grpc::StatusCode code, std::string message,
              ServerReflectionResponse& response) {
  response.mutable_error_response()->set_error_code(code);
  response.mutable_error_response()->set_error_message(std::move(message));
}

// Adds a file, behind those that it imports.
void AddFile(const pb::FileDescriptor& file, Known& known,
             ServerReflectionResponse& response) {
  if (!known.insert(&file).second) return;
  pb::FileDescriptorProto proto;
  file.CopyTo(&proto);
  *response.mutable_file_descriptor_response()->add_file_descriptor_proto() =
      proto.SerializeAsString();
  for (int i = 0; i < file.dependency_count(); ++i) {
    AddFile(*file.dependency(i), known, response);
  }
}

void AnswerFile(const ServerReflectionRequest& request, Known& known,
                ServerReflectionResponse& response) {
  const pb::FileDescriptor* const file = FindFile(request);
  if (file == nullptr) {
    SetError(grpc::NOT_FOUND, "the server does not know that", response);
  } else {
    response.mutable_file_descriptor_response();
    known.erase(file);  // It goes again to a client that asks again.
    AddFile(*file, known, response);
  }
}

void AnswerExtensions(const std::string& name,
                      ServerReflectionResponse& response) {
  const pb::Descriptor* const type = Pool().FindMessageTypeByName(name);
  if (type == nullptr) {
    SetError(grpc::NOT_FOUND, absl::StrCat("no message ", Quote(name)),
             response);
    return;
  }
  auto& numbers = *response.mutable_all_extension_numbers_response();
  numbers.set_base_type_name(name);
  std::vector<const pb::FieldDescriptor*> extensions;
  Pool().FindAllExtensions(type, &extensions);
  for (const pb::FieldDescriptor* const extension : extensions) {
    numbers.add_extension_number(extension->number());
  }
}

}  // namespace

ReflectionService::ReflectionService(std::vector<std::string> services)
    : QueuedService("grpc.reflection.v1alpha.ServerReflection"),
      services_(std::move(services)) {
  AddRpc("ServerReflectionInfo");
  services_.emplace_back("grpc.reflection.v1alpha.ServerReflection");
}

Task<absl::Status> ReflectionService::ServeRpc(size_t /*index*/, Rpc& rpc) {
  absl::Status status = co_await AnswerAll(rpc);
  const grpc::Status ended = ToGrpc(status);
  co_await Operation([&](void* tag) { rpc.stream.Finish(ended, tag); });
  co_return status;
}

Task<absl::Status> ReflectionService::AnswerAll(Rpc& rpc) {
  Known known;
  while (true) {
    ServerReflectionRequest request;
    absl::Status read = co_await ReadMessage(rpc, request);
    if (absl::IsOutOfRange(read)) co_return absl::OkStatus();
    if (!read.ok()) co_return read;
    ServerReflectionResponse response;
    response.set_valid_host(request.host());
    *response.mutable_original_request() = request;
    switch (request.message_request_case()) {
      case ServerReflectionRequest::kListServices:
        for (const std::string& service : services_) {
          response.mutable_list_services_response()->add_service()->set_name(
              service);
        }
        break;
      case ServerReflectionRequest::kAllExtensionNumbersOfType:
        AnswerExtensions(request.all_extension_numbers_of_type(), response);
        break;
      case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
        SetError(grpc::INVALID_ARGUMENT, "the request asks nothing", response);
        break;
      default:
        AnswerFile(request, known, response);
    }
    absl::Status written = co_await WriteMessage(rpc, response);
    if (!written.ok()) co_return written;
  }
}

}  // namespace backboned::rpc
