// Serves grpc.reflection.v1alpha.ServerReflection.

#ifndef BACKBONED_SERVER_RPC_STANDARD_REFLECTION_SERVICE_H_
#define BACKBONED_SERVER_RPC_STANDARD_REFLECTION_SERVICE_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/task.h"
#include "server/rpc/transport/completion.h"
#include "server/rpc/transport/queued_service.h"

namespace backboned::rpc {

// Describes services by the descriptors that are compiled in.
//
// Thread-safe.
class ReflectionService final : public QueuedService {
 public:
  // `services`: the full names of the server's others.
  explicit ReflectionService(std::vector<std::string> services);

 private:
  Task<absl::Status> ServeRpc(size_t index, Rpc& rpc) override;
  Task<absl::Status> AnswerAll(Rpc& rpc);

  std::vector<std::string> services_;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_STANDARD_REFLECTION_SERVICE_H_
