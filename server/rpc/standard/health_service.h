// Serves grpc.health.v1.Health.

#ifndef BACKBONED_SERVER_RPC_STANDARD_HEALTH_SERVICE_H_
#define BACKBONED_SERVER_RPC_STANDARD_HEALTH_SERVICE_H_

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/task.h"
#include "grpc/health/v1/health.pb.h"
#include "server/callers/directory.h"
#include "server/callers/rights.h"
#include "server/rpc/transport/call_streams.h"
#include "server/rpc/transport/completion.h"
#include "server/rpc/transport/decorator.h"
#include "server/rpc/transport/queued_service.h"

namespace backboned::rpc {

// Tells everybody whether the server serves, and a caller whether an instance
// does that it may read: the service is named as calls name the instance. To
// ask is no use of the instance, and wakes none.
//
// An instance serves, also one that sleeps, unless the server does not, its
// device is lost, or its file could not be read when it was woken last.
//
// Thread-safe.
class HealthService final : public QueuedService {
 public:
  // `surroundings` must outlive the service.
  explicit HealthService(Surroundings& surroundings);
  ~HealthService() override;

  // Returns whether calls are served: no drain has begun, and no device is
  // lost.
  bool IsServing() const;

  // Tells watchers that the server drains, which has begun, and ends them. Call
  // it where the queue's completions are handled.
  void Drain() { watchers_.DrainAll(); }

  // Tells watchers whose callers have other rights what these may know now.
  void RecheckCallers() { watchers_.RecheckAll(); }

 private:
  class Watcher;

  using ByName = std::multimap<std::string, Watcher*, std::less<>>;
  using Answer = ::grpc::health::v1::HealthCheckResponse::ServingStatus;

  Task<absl::Status> ServeRpc(size_t index, Rpc& rpc) override;
  Task<absl::Status> Check(Rpc& rpc);
  Task<absl::Status> Watch(Rpc& rpc);
  Task<absl::Status> Report(Rpc& rpc, Watcher& watcher);

  Answer AboutServer() const;
  // Returns kNotFound of an instance that `caller` may not know of.
  absl::StatusOr<Answer> AboutInstance(std::string_view instance,
                                       const Caller& caller) const;
  absl::StatusOr<Caller> Find(const absl::StatusOr<Identity>& identity) const;
  void WakeWatchersOf(std::string_view name);

  Surroundings& surroundings_;
  CallStreams watchers_;
  absl::Mutex mutex_;
  // By the instance's name without its owner.
  ByName by_name_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_STANDARD_HEALTH_SERVICE_H_
