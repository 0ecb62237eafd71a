#include "server/rpc/transport/decorated_service.h"

#include <cassert>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "backboned/v1/backbone_service.pb.h"
#include "server/callers/rights.h"
#include "server/rpc/transport/call_log.h"
#include "server/rpc/transport/listener.h"
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
    : QueuedService(service), surroundings_(surroundings) {}

absl::StatusOr<std::shared_ptr<Instance>> DecoratedService::Find(
    Call& call, const std::string& name, Access access) {
  assert(access != Access::kAny && access != Access::kCreate);
  call.record().instance = name;
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      server().registry().Find(name, call.caller());
  if (!instance.ok()) return instance;
  absl::Status allowed = CheckAccess(call, **instance, access);
  if (!allowed.ok()) return allowed;
  call.set_found(**instance);
  return instance;
}

Task<absl::StatusOr<std::shared_ptr<Instance>>> DecoratedService::Resolve(
    Call& call, const std::string& name, Access access) {
  absl::StatusOr<std::shared_ptr<Instance>> instance = Find(call, name, access);
  if (!instance.ok()) co_return instance;
  if (!(*instance)->is_asleep()) {  // As nearly always.
    (*instance)->Touch(server().clock().Now());
    co_return instance;
  }
  absl::Status awake =
      co_await server().Wake(*instance, call.WorkerRequest(/*lane=*/0));
  if (!awake.ok()) co_return awake;
  co_return instance;
}

absl::Status DecoratedService::CheckAccess(const Call& call,
                                           const Instance& instance,
                                           Access access) {
  absl::Status right = CheckRight(instance.ownership(), call.caller(), access);
  if (!right.ok() || access != Access::kWrite) return right;
  return instance.CheckWritable();
}

void DecoratedService::Register(Method method) {
  AddRpc(method.name);
  if (method.handler) {
    surroundings_.metrics.AddMethod(method.name);
  } else {
    surroundings_.metrics.AddStream(method.name);
  }
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
  Register({.name = std::string(name), .access = Access::kAny});
}

Task<absl::Status> DecoratedService::ServeRpc(size_t index, Rpc& rpc) {
  const Method& method = methods_[index];
  const absl::StatusOr<Identity> identity = IdentityOf(rpc.context);
  absl::StatusOr<Call> call =
      identity.ok()
          ? Call::Create(method.name, rpc.context, *identity,
                         rpc.gone.get_token(), surroundings_.server.directory(),
                         surroundings_.server.clock())
          : identity.status();
  if (call.ok()) co_return co_await ServeCalls(method, rpc, *call);
  LogRefusal(method.name, identity.ok() ? identity->name : "", call.status(),
             surroundings_.metrics);
  const grpc::Status refused = ToGrpc(call.status());
  co_await Operation([&](void* tag) { rpc.stream.Finish(refused, tag); });
  co_return call.status();
}

// Serves an RPC that is a call, or a stream of calls.
Task<absl::Status> DecoratedService::ServeCalls(const Method& method, Rpc& rpc,
                                                Call& call) {
  if (!method.handler) {
    CallStream stream(rpc, call, surroundings_, streamed_);
    co_return co_await stream.Serve();
  }
  RpcStream stream(rpc, call, surroundings_.watchdog);
  co_return co_await ServeCall(surroundings_, method, call, stream);
}

}  // namespace backboned::rpc
