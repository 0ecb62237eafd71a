// Serves RPCs on the completion queue.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_QUEUED_SERVICE_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_QUEUED_SERVICE_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/impl/service_type.h>

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "base/task.h"
#include "server/rpc/transport/completion.h"
#include "server/rpc/transport/completion_thread.h"

namespace backboned::rpc {

// A gRPC service whose methods take and give raw messages, any number each way.
// On the wire they are those of the .proto files, in unary methods too.
class QueuedService : public grpc::Service {
 public:
  // Serves RPCs from now on, on `thread`'s queue. Call it once the server has
  // started. `thread` must outlive the RPCs.
  void Serve(CompletionThread& thread);

 protected:
  // `service`: the full name, `backboned.v1.BackboneService`.
  explicit QueuedService(std::string_view service) : service_(service) {}

  // Registers a method. The first one has the index 0.
  void AddRpc(std::string_view name);

  // Serves an RPC of the method with this index until its status has gone, and
  // gives that.
  virtual Task<absl::Status> ServeRpc(size_t index, Rpc& rpc) = 0;

 private:
  Detached ServeNext(CompletionThread& thread, size_t index);
  Task<bool> Answer(CompletionThread& thread, size_t index);

  const std::string service_;
  std::deque<std::string> paths_;  // gRPC keeps pointers to them.
};

// Reads the next message of an RPC into `message`. Gives kOutOfRange behind the
// last one, kInvalidArgument if it cannot be decoded.
Task<absl::Status> ReadMessage(Rpc& rpc,
                               google::protobuf::MessageLite& message);

// Writes a message. Gives kCancelled if the client is gone.
Task<absl::Status> WriteMessage(Rpc& rpc,
                                const google::protobuf::MessageLite& message);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_QUEUED_SERVICE_H_
