#include "server/rpc/transport/decorated_service.h"

#include <grpcpp/impl/rpc_service_method.h>
#include <grpcpp/support/method_handler.h>

#include <cassert>

#include "absl/strings/str_cat.h"
#include "server/limits/catching.h"
#include "server/rpc/transport/call_log.h"
#include "server/rpc/transport/status.h"

namespace backboned::rpc {

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

void DecoratedService::AddMethod(std::string_view method, Access access,
                                 Handler handler) {
  paths_.push_back(absl::StrCat(
      "/", service_, "/", absl::string_view(method.data(), method.size())));
  using Bidi =
      grpc::internal::BidiStreamingHandler<DecoratedService, grpc::ByteBuffer,
                                           grpc::ByteBuffer>;
  auto serve = [name = std::string(method), access,
                handler = std::move(handler)](DecoratedService* service,
                                              grpc::ServerContext* context,
                                              MessageStream::Stream* stream) {
    return service->Serve(name, access, handler, *context, *stream);
  };
  grpc::Service::AddMethod(new grpc::internal::RpcServiceMethod(
      paths_.back().c_str(), grpc::internal::RpcMethod::BIDI_STREAMING,
      new Bidi(std::move(serve), this)));
}

grpc::Status DecoratedService::Serve(std::string_view method, Access access,
                                     const Handler& handler,
                                     grpc::ServerContext& context,
                                     MessageStream::Stream& stream) {
  absl::StatusOr<Call> call =
      Call::Create(method, context, surroundings_.server.clock());
  if (!call.ok()) {
    LogRefusal(method, call.status());
    return ToGrpc(call.status());
  }
  call->set_access(access);
  absl::StatusOr<Gate::Pass> pass = surroundings_.gate.Enter(call->payer());
  if (!pass.ok()) {
    surroundings_.server.sessions().Touch(call->session(), call->principal(),
                                          call->received());
    LogCall(*call, pass.status());
    return ToGrpc(pass.status());
  }
  absl::Status status = RunCatching([&]() -> absl::Status {
    absl::StatusOr<Sessions::Call> session =
        surroundings_.server.sessions().Begin(
            call->session(), call->principal(), call->received());
    if (!session.ok()) return session.status();
    call->set_account(surroundings_.server.accounts().Of(call->payer()));
    const ScopedAccount scope(call->account());
    MessageStream messages(stream, *call, surroundings_.watchdog);
    return handler(*call, messages);
  });
  status = call->HowItEnded(status);
  LogCall(*call, status);
  return ToGrpc(status);
}

}  // namespace backboned::rpc
