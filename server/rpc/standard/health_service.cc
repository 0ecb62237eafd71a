#include "server/rpc/standard/health_service.h"

#include <stop_token>
#include <utility>

#include "grpc/health/v1/health.pb.h"
#include "server/rpc/transport/status.h"

namespace backboned::rpc {
namespace {

using Request = ::grpc::health::v1::HealthCheckRequest;
using Response = ::grpc::health::v1::HealthCheckResponse;

constexpr size_t kCheck = 0;

Task<absl::Status> Tell(Rpc& rpc, Response::ServingStatus status) {
  Response response;
  response.set_status(status);
  co_return co_await WriteMessage(rpc, response);
}

}  // namespace

HealthService::HealthService() : QueuedService("grpc.health.v1.Health") {
  AddRpc("Check");
  AddRpc("Watch");
}

void HealthService::Drain() {
  std::set<std::shared_ptr<Event>> watchers;
  {
    absl::MutexLock lock(&mutex_);
    drains_ = true;
    watchers = watchers_;
  }
  for (const auto& change : watchers) change->Happen();
}

Task<absl::Status> HealthService::ServeRpc(size_t index, Rpc& rpc) {
  absl::Status status;
  if (index == kCheck) {
    status = co_await Check(rpc);
  } else {
    status = co_await Watch(rpc);
  }
  const grpc::Status ended = ToGrpc(status);
  co_await Operation([&](void* tag) { rpc.stream.Finish(ended, tag); });
  co_return status;
}

Task<absl::Status> HealthService::Check(Rpc& rpc) {
  Request request;
  absl::Status read = co_await ReadMessage(rpc, request);
  if (!read.ok()) co_return read;
  if (!request.service().empty()) {
    co_return absl::NotFoundError(
        "only the server as a whole has a health: leave the service empty");
  }
  bool drains;
  {
    absl::MutexLock lock(&mutex_);
    drains = drains_;
  }
  co_return co_await Tell(rpc,
                          drains ? Response::NOT_SERVING : Response::SERVING);
}

// Lasts until the client has gone, or the server drains.
Task<absl::Status> HealthService::Watch(Rpc& rpc) {
  Request request;
  absl::Status read = co_await ReadMessage(rpc, request);
  if (!read.ok()) co_return read;
  const auto change = std::make_shared<Event>();
  bool drains;
  {
    absl::MutexLock lock(&mutex_);
    drains = drains_;
    watchers_.insert(change);
  }
  const bool is_known = request.service().empty();
  if (!drains) {
    co_await Tell(rpc,
                  is_known ? Response::SERVING : Response::SERVICE_UNKNOWN);
    const std::stop_callback gone(rpc.gone.get_token(),
                                  [&change] { change->Happen(); });
    Event& changed = *change;  // GCC 12 would copy the operand `*change`.
    co_await changed;
  }
  {
    absl::MutexLock lock(&mutex_);
    watchers_.erase(change);
  }
  if (is_known) co_await Tell(rpc, Response::NOT_SERVING);
  co_return Draining();
}

}  // namespace backboned::rpc
