#include "server/rpc/transport/decorated_service.h"

#include <grpcpp/impl/rpc_service_method.h>

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

void DecoratedService::AddMethod(std::string_view name, Access access,
                                 Handler handler) {
  const Method& method = methods_.emplace_back(
      std::string(name),
      absl::StrCat("/", service_, "/",
                   absl::string_view(name.data(), name.size())),
      access, std::move(handler));
  auto* const registered = new grpc::internal::RpcServiceMethod(
      method.path.c_str(), grpc::internal::RpcMethod::BIDI_STREAMING,
      /*handler=*/nullptr);
  registered->SetServerApiType(
      grpc::internal::RpcServiceMethod::ApiType::ASYNC);
  grpc::Service::AddMethod(registered);
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
    call->set_access(method.access);
    MessageStream stream(rpc, *call, surroundings_.watchdog);
    absl::StatusOr<Gate::Pass> place = surroundings_.gate.Enter(call->payer());
    absl::Status status = place.status();
    if (place.ok()) {
      stream.KeepPlace(*std::move(place));
      status = co_await Run(method, *call, stream);
    } else {
      surroundings_.server.sessions().Touch(call->session(), call->principal(),
                                            call->received());
    }
    status = call->HowItEnded(status);
    co_await stream.Finish(status);
    LogCall(*call, status);
  } else {
    LogRefusal(method.name, call.status());
    const grpc::Status refused = ToGrpc(call.status());
    co_await Operation([&](void* tag) { rpc.stream.Finish(refused, tag); });
  }
  co_await rpc.ended;
  co_return true;
}

// Runs a call that was let in.
Task<absl::Status> DecoratedService::Run(const Method& method, Call& call,
                                         MessageStream& stream) {
  try {
    const absl::StatusOr<Sessions::Call> session =
        surroundings_.server.sessions().Begin(call.session(), call.principal(),
                                              call.received());
    if (!session.ok()) co_return session.status();
    call.set_account(surroundings_.server.accounts().Of(call.payer()));
    co_await Under(call.account());
    co_return co_await method.handler(call, stream);
  } catch (...) {
    co_return RunCatching([]() -> absl::Status { throw; });
  }
}

}  // namespace backboned::rpc
