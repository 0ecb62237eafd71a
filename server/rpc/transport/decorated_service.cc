#include "server/rpc/transport/decorated_service.h"

#include <grpcpp/impl/rpc_service_method.h>

#include <cassert>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "backboned/v1/backbone_service.pb.h"
#include "server/rpc/transport/call_log.h"
#include "server/rpc/transport/rpc_stream.h"
#include "server/rpc/transport/status.h"

namespace backboned::rpc {
namespace {

// Returns `GetParams` as `get_params`.
std::string SnakeCase(std::string_view name) {
  std::string snake;
  for (const char c : name) {
    if (absl::ascii_isupper(c) && !snake.empty()) snake += '_';
    snake += absl::ascii_tolower(c);
  }
  return snake;
}

}  // namespace

DecoratedService::DecoratedService(std::string_view service,
                                   Surroundings& surroundings)
    : service_(service), surroundings_(surroundings) {}

absl::StatusOr<std::shared_ptr<Instance>> DecoratedService::Resolve(
    Call& call, const std::string& name, Access access) {
  assert(access != Access::kNone);
  call.record().instance = name;
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      server().registry().Find(name, call.principal());
  if (!instance.ok() || access != Access::kWrite) return instance;
  absl::Status writable = (*instance)->CheckWritable();
  if (!writable.ok()) return writable;
  return instance;
}

void DecoratedService::Register(Method method) {
  const std::string& path =
      paths_.emplace_back(absl::StrCat("/", service_, "/", method.name));
  auto* const registered = new grpc::internal::RpcServiceMethod(
      path.c_str(), grpc::internal::RpcMethod::BIDI_STREAMING,
      /*handler=*/nullptr);
  registered->SetServerApiType(
      grpc::internal::RpcServiceMethod::ApiType::ASYNC);
  grpc::Service::AddMethod(registered);
  methods_.push_back(std::move(method));
}

void DecoratedService::AddCalls(std::string_view name) {
  for (const Method& method : methods_) {
    const auto* const header =
        v1::CallsRequest::descriptor()->FindFieldByName(SnakeCase(method.name));
    if (header != nullptr) {
      streamed_.emplace(static_cast<uint32_t>(header->number()), &method);
    }
  }
  Register({.name = std::string(name)});
}

void DecoratedService::Serve(CompletionThread& thread) {
  for (size_t i = 0; i < methods_.size(); ++i) ServeNext(thread, i);
}

// Waits for a call of a method, and answers it.
Detached DecoratedService::ServeNext(CompletionThread& thread, size_t index) {
  thread.Enter();
  co_await Answer(thread, index);
  thread.Leave();
}

// Gives whether a call came.
Task<bool> DecoratedService::Answer(CompletionThread& thread, size_t index) {
  Rpc rpc(thread.queue());
  const bool came = co_await Operation([&](void* tag) {
    RequestAsyncBidiStreaming(static_cast<int>(index), &rpc.context,
                              &rpc.stream, &rpc.queue, &rpc.queue, tag);
  });
  if (!came) co_return false;
  ServeNext(thread, index);
  const Method& method = methods_[index];
  absl::StatusOr<Call> call =
      Call::Create(method.name, rpc.context, rpc.gone.get_token(),
                   surroundings_.server.clock());
  if (call.ok()) {
    co_await ServeRpc(method, rpc, *call);
  } else {
    LogRefusal(method.name, call.status());
    const grpc::Status refused = ToGrpc(call.status());
    co_await Operation([&](void* tag) { rpc.stream.Finish(refused, tag); });
  }
  co_await rpc.ended;
  co_return true;
}

Task<absl::Status> DecoratedService::ServeRpc(const Method& method, Rpc& rpc,
                                              Call& call) {
  if (!method.handler) {
    CallStream stream(rpc, call, surroundings_, streamed_);
    co_return co_await stream.Serve();
  }
  RpcStream stream(rpc, call, surroundings_.watchdog);
  co_return co_await ServeCall(surroundings_, method, call, stream);
}

}  // namespace backboned::rpc
