#include "server/rpc/transport/queued_service.h"

#include <grpcpp/impl/rpc_service_method.h>
#include <grpcpp/support/byte_buffer.h>

#include "proto/wire/unary.h"

namespace backboned::rpc {

void QueuedService::AddRpc(std::string_view name) {
  const std::string& path =
      paths_.emplace_back("/" + service_ + "/" + std::string(name));
  auto* const method = new grpc::internal::RpcServiceMethod(
      path.c_str(), grpc::internal::RpcMethod::BIDI_STREAMING,
      /*handler=*/nullptr);
  method->SetServerApiType(grpc::internal::RpcServiceMethod::ApiType::ASYNC);
  grpc::Service::AddMethod(method);
}

void QueuedService::Serve(CompletionThread& thread) {
  for (size_t i = 0; i < paths_.size(); ++i) ServeNext(thread, i);
}

// Waits for an RPC of a method, and serves it.
Detached QueuedService::ServeNext(CompletionThread& thread, size_t index) {
  thread.Enter();
  co_await Answer(thread, index);
  thread.Leave();
}

// Gives whether an RPC came.
Task<bool> QueuedService::Answer(CompletionThread& thread, size_t index) {
  Rpc rpc(thread.queue());
  const bool came = co_await Operation([&](void* tag) {
    RequestAsyncBidiStreaming(static_cast<int>(index), &rpc.context,
                              &rpc.stream, &rpc.queue, &rpc.queue, tag);
  });
  if (!came) co_return false;
  ServeNext(thread, index);
  co_await ServeRpc(index, rpc);
  co_await rpc.ended;
  co_return true;
}

Task<absl::Status> ReadMessage(Rpc& rpc,
                               google::protobuf::MessageLite& message) {
  grpc::ByteBuffer buffer;
  const bool came =
      co_await Operation([&](void* tag) { rpc.stream.Read(&buffer, tag); });
  if (!came) co_return absl::OutOfRangeError("the client sends no more");
  co_return wire::Parse(buffer, message);
}

Task<absl::Status> WriteMessage(Rpc& rpc,
                                const google::protobuf::MessageLite& message) {
  const grpc::ByteBuffer buffer = wire::Serialize(message);
  const bool written =
      co_await Operation([&](void* tag) { rpc.stream.Write(buffer, tag); });
  if (!written) co_return absl::CancelledError("the client went away");
  co_return absl::OkStatus();
}

}  // namespace backboned::rpc
