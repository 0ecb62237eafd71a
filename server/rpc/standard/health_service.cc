#include "server/rpc/standard/health_service.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>

#include "absl/time/clock.h"
#include "base/errors.h"
#include "server/device/device_worker.h"
#include "server/instances/instance.h"
#include "server/instances/registry.h"
#include "server/limits/budget.h"
#include "server/limits/continuation.h"
#include "server/rpc/transport/call_log.h"
#include "server/rpc/transport/gate.h"
#include "server/rpc/transport/listener.h"
#include "server/rpc/transport/status.h"
#include "server/server.h"

namespace backboned::rpc {
namespace {

using Request = ::grpc::health::v1::HealthCheckRequest;
using Response = ::grpc::health::v1::HealthCheckResponse;

constexpr size_t kCheck = 0;

// The bytes of a name that a watcher may keep here: more than an instance's can
// have, with its owner's.
constexpr size_t kMostNameBytes = 256;

// One in so many places is for watchers who are not the server's users.
constexpr int64_t kStrangersPart = 16;

Task<absl::Status> Tell(Rpc& rpc, Response::ServingStatus status) {
  Response response;
  response.set_status(status);
  co_return co_await WriteMessage(rpc, response);
}

}  // namespace

// Watches an instance, or, if its name is empty, the server.
class HealthService::Watcher final : public CallStreams::Member {
 public:
  // The arguments must outlive it. `identity`: of who asks for an instance.
  Watcher(const HealthService& service, Rpc& rpc, const std::string& instance,
          const absl::StatusOr<Identity>& identity)
      : service_(service),
        rpc_(rpc),
        instance_(instance),
        identity_(identity) {}

  // Returns the instance's name without its owner.
  std::string_view name() const {
    const std::string_view reference = instance_;
    return reference.substr(reference.find('/') + 1);  // npos + 1 is 0.
  }

  // Returns what the watcher is to be told now, or why it may not be told any
  // more.
  absl::StatusOr<Answer> Look() {
    if (instance_.empty()) return service_.AboutServer();
    const absl::StatusOr<Caller> caller = service_.Find(identity_);
    {
      absl::MutexLock lock(&mutex_);
      caller_ = caller;
    }
    if (!caller.ok()) return caller.status();
    const absl::StatusOr<Answer> answer =
        service_.AboutInstance(instance_, *caller);
    if (absl::IsNotFound(answer.status())) return Response::SERVICE_UNKNOWN;
    return answer;
  }

  // Returns what happens at the first change from now on.
  std::shared_ptr<Event> NextChange() {
    absl::MutexLock lock(&mutex_);
    change_ = std::make_shared<Event>();
    return change_;
  }

  // Lets the watcher look again. Thread-safe.
  void Wake() {
    std::shared_ptr<Event> change;
    {
      absl::MutexLock lock(&mutex_);
      change.swap(change_);
    }
    // Others' threads hold locks here, and write to no client.
    if (change != nullptr) Post(rpc_.queue, [change] { change->Happen(); });
  }

  void Drain() override { Wake(); }

  void Recheck() override {
    if (instance_.empty()) return;
    const absl::StatusOr<Caller> caller = service_.Find(identity_);
    {
      absl::MutexLock lock(&mutex_);
      if (caller == caller_) return;
    }
    Wake();
  }

 private:
  const HealthService& service_;
  Rpc& rpc_;
  const std::string& instance_;
  const absl::StatusOr<Identity>& identity_;

  absl::Mutex mutex_;
  // As of the last look.
  absl::StatusOr<Caller> caller_ ABSL_GUARDED_BY(mutex_);
  // Null: it has happened, or soon does.
  std::shared_ptr<Event> change_ ABSL_GUARDED_BY(mutex_);
};

HealthService::HealthService(Surroundings& surroundings)
    : QueuedService("grpc.health.v1.Health"),
      surroundings_(surroundings),
      watchers_(surroundings.server.limits().max_streams,
                surroundings.server.limits().quotas) {
  AddRpc("Check");
  AddRpc("Watch");
  surroundings_.server.registry().SetListener(
      [this](std::string_view name) { WakeWatchersOf(name); });
}

HealthService::~HealthService() {
  surroundings_.server.registry().SetListener(nullptr);
}

bool HealthService::IsServing() const {
  return !surroundings_.gate.is_draining() &&
         std::ranges::none_of(surroundings_.server.workers(),
                              &DeviceWorker::is_lost);
}

Task<absl::Status> HealthService::ServeRpc(size_t index, Rpc& rpc) {
  absl::Status status;
  if (index == kCheck) {
    status = co_await Check(rpc);
  } else {
    status = co_await Watch(rpc);
  }
  if (absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status)) {
    const absl::StatusOr<Identity> identity = IdentityOf(rpc.context);
    LogRefusal(index == kCheck ? "Check" : "Watch",
               identity.ok() ? identity->name : "", status,
               surroundings_.metrics);
  }
  const grpc::Status ended = ToGrpc(status);
  co_await Operation([&](void* tag) { rpc.stream.Finish(ended, tag); });
  co_return status;
}

Task<absl::Status> HealthService::Check(Rpc& rpc) {
  Request request;
  absl::Status read = co_await ReadMessage(rpc, request);
  if (!read.ok()) co_return read;
  if (request.service().empty()) co_return co_await Tell(rpc, AboutServer());
  const absl::StatusOr<Caller> caller = Find(IdentityOf(rpc.context));
  if (!caller.ok()) co_return caller.status();
  const absl::StatusOr<Answer> answer =
      AboutInstance(request.service(), *caller);
  if (!answer.ok()) co_return answer.status();
  co_return co_await Tell(rpc, *answer);
}

Task<absl::Status> HealthService::Watch(Rpc& rpc) {
  Request request;
  absl::Status read = co_await ReadMessage(rpc, request);
  if (!read.ok()) co_return read;
  const absl::StatusOr<Identity> identity = IdentityOf(rpc.context);
  const absl::StatusOr<Caller> caller = Find(identity);
  const std::string& instance = request.service();
  if (instance.size() > kMostNameBytes) {
    co_return InvalidOption("no instance has so long a name");
  }
  request.DiscardUnknownFields();  // The watcher keeps what it is asked.
  if (!instance.empty() && !caller.ok()) co_return caller.status();
  // Strangers, who may watch the server, are one payer, and have a part of the
  // places, so that they take none of those of users.
  const Payer payer = {.principal = caller.ok() ? caller->principal : ""};
  if (!caller.ok() &&
      watchers_.places().used(LimitScope::kPrincipal, payer) >=
          std::max(surroundings_.server.limits().max_streams / kStrangersPart,
                   int64_t{1})) {
    co_return absl::ResourceExhaustedError(
        "too many watch the server who are not its users");
  }
  Watcher watcher(*this, rpc, instance, identity);
  const absl::StatusOr<Budget::Reservation> place =
      watchers_.Enter(payer, watcher);
  if (!place.ok()) co_return place.status();
  ByName::iterator known;
  {
    absl::MutexLock lock(&mutex_);
    known = by_name_.emplace(watcher.name(), &watcher);
  }
  absl::Status status = co_await Report(rpc, watcher);
  {
    absl::MutexLock lock(&mutex_);
    by_name_.erase(known);
  }
  watchers_.Leave(watcher);
  co_return status;
}

// Lasts until the client has gone, or may not ask any more, or the server
// drains.
Task<absl::Status> HealthService::Report(Rpc& rpc, Watcher& watcher) {
  std::optional<Answer> told;
  while (!rpc.gone.stop_requested()) {
    // In this order, so that what changes after the look is not missed.
    const std::shared_ptr<Event> change = watcher.NextChange();
    const bool drains = surroundings_.gate.is_draining();
    const absl::StatusOr<Answer> now = watcher.Look();
    if (!now.ok()) co_return now.status();
    if (*now != told) {
      told = *now;
      absl::Status written = co_await Tell(rpc, *now);
      if (!written.ok()) co_return written;
    }
    if (drains) co_return Draining();
    const std::stop_callback gone(rpc.gone.get_token(),
                                  [&change] { change->Happen(); });
    Event& changed = *change;  // GCC 12 would copy the operand `*change`.
    co_await changed;
  }
  co_return absl::CancelledError("the client went away");
}

HealthService::Answer HealthService::AboutServer() const {
  return IsServing() ? Response::SERVING : Response::NOT_SERVING;
}

absl::StatusOr<HealthService::Answer> HealthService::AboutInstance(
    std::string_view instance, const Caller& caller) const {
  const absl::StatusOr<std::shared_ptr<Instance>> found =
      surroundings_.server.registry().Find(instance, caller);
  if (!found.ok()) return found.status();
  return (*found)->readable() ? AboutServer() : Response::NOT_SERVING;
}

absl::StatusOr<Caller> HealthService::Find(
    const absl::StatusOr<Identity>& identity) const {
  if (!identity.ok()) return identity.status();
  return surroundings_.server.directory().Find(*identity, absl::Now());
}

void HealthService::WakeWatchersOf(std::string_view name) {
  absl::MutexLock lock(&mutex_);
  const auto [begin, end] = by_name_.equal_range(name);
  for (auto each = begin; each != end; ++each) each->second->Wake();
}

}  // namespace backboned::rpc
