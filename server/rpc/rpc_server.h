// A gRPC server around a Server.

#ifndef BACKBONED_SERVER_RPC_RPC_SERVER_H_
#define BACKBONED_SERVER_RPC_RPC_SERVER_H_

#include <grpcpp/channel.h>
#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/metrics/call_metrics.h"
#include "server/rpc/backbone/backbone_service.h"
#include "server/rpc/instances/instance_service.h"
#include "server/rpc/standard/health_service.h"
#include "server/rpc/standard/reflection_service.h"
#include "server/rpc/transport/account_acceptor.h"
#include "server/rpc/transport/call_streams.h"
#include "server/rpc/transport/completion_thread.h"
#include "server/rpc/transport/decorator.h"
#include "server/rpc/transport/gate.h"
#include "server/rpc/transport/listen.h"
#include "server/rpc/transport/listener.h"
#include "server/rpc/transport/stall_watchdog.h"
#include "server/server.h"

namespace backboned::rpc {

// Serves both services, grpc.health.v1 and, if wanted, reflection, from its
// start until Drain or its destruction.
//
// Thread-safe.
class RpcServer {
 public:
  struct Options {
    std::vector<Listener> listeners;  // None: only the in-process channel.
    bool insecure_remote = false;     // Allow addresses beyond loopback.
    bool reflection = true;
  };

  // Starts to serve; `server` must outlive it. Errors name the address:
  // kInvalidArgument, kFailedPrecondition (beyond loopback, or permissions that
  // the system refuses), kUnavailable (taken).
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      Server& server, const Options& options);

  // Ends the calls that still run.
  ~RpcServer();

  // The addresses, with the chosen ports in place of port 0.
  const std::vector<std::string>& addresses() const { return addresses_; }

  // The following are for those who watch it.
  Server& server() const { return surroundings_.server; }
  const Gate& gate() const { return gate_; }
  const CallStreams& streams() const { return streams_; }
  const CallMetrics& metrics() const { return metrics_; }

  // Returns whether calls are served: no drain has begun, and no device is
  // lost.
  bool is_serving() const { return health_service_.IsServing(); }

  // Returns a channel inside this process.
  std::shared_ptr<grpc::Channel> InProcessChannel();

  // Ends the streams of calls, and the watches of an instance's health, whose
  // callers may not call any more. Lets clients move from streams whose callers
  // have other rights, and tells watchers what these may know now.
  void RecheckCallers();

  // Refuses new calls and waits until those inside have ended; cancels those
  // that still run after `grace`.
  void Drain(absl::Duration grace);

 private:
  explicit RpcServer(Server& server);

  absl::Status Claim(const Options& options);
  absl::Status Build(const Options& options);
  absl::Status Open(const Options& options);

  Gate gate_;
  StallWatchdog watchdog_;
  CallStreams streams_;
  CallMetrics metrics_;
  Surroundings surroundings_;
  InstanceService instance_service_;
  BackboneService backbone_service_;
  HealthService health_service_;
  ReflectionService reflection_service_;
  std::vector<AddressClaim> claims_;
  std::unique_ptr<AccountAcceptor> accounts_;  // Null: no listener needs it.
  std::vector<std::string> addresses_;
  std::unique_ptr<grpc::Server> server_;      // It uses all of the above.
  std::unique_ptr<CompletionThread> thread_;  // Last: it uses the server.
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_RPC_SERVER_H_
