// Serves grpc.health.v1.Health.

#ifndef BACKBONED_SERVER_RPC_STANDARD_HEALTH_SERVICE_H_
#define BACKBONED_SERVER_RPC_STANDARD_HEALTH_SERVICE_H_

#include <cstddef>
#include <memory>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/task.h"
#include "server/limits/continuation.h"
#include "server/rpc/transport/completion.h"
#include "server/rpc/transport/queued_service.h"

namespace backboned::rpc {

// Tells of the server as a whole that it serves, and from its drain on that it
// does not. It knows no other service.
//
// Thread-safe.
class HealthService final : public QueuedService {
 public:
  HealthService();

  // Tells from now on that the server does not serve. Call it where the queue's
  // completions are handled.
  void Drain();

 private:
  Task<absl::Status> ServeRpc(size_t index, Rpc& rpc) override;
  Task<absl::Status> Check(Rpc& rpc);
  Task<absl::Status> Watch(Rpc& rpc);

  absl::Mutex mutex_;
  bool drains_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::shared_ptr<Event>> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_STANDARD_HEALTH_SERVICE_H_
