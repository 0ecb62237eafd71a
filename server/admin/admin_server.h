// Answers HTTP about the server, for those who watch it.

#ifndef BACKBONED_SERVER_ADMIN_ADMIN_SERVER_H_
#define BACKBONED_SERVER_ADMIN_ADMIN_SERVER_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "server/admin/http_server.h"
#include "server/admin/server_status.h"
#include "server/rpc/rpc_server.h"
#include "server/rpc/transport/listen.h"
#include "server/rpc/transport/listener.h"

namespace backboned::admin {

// Answers GET on the listeners with serve=admin: /healthz with 200 while calls
// are served, and 503 while the server drains or when a device is lost;
// /metrics with what the server does, in Prometheus' text format
// (docs/metrics.md); / with a page for people, and /status.json with its
// figures (docs/status-page.md).
//
// Thread-safe.
class AdminServer {
 public:
  struct Options {
    bool insecure_remote = false;  // Allow addresses beyond loopback.
    std::string state_dir = {};    // Its disk is watched. Empty: there is none.
  };

  // Starts to serve on `listeners`; `server` must outlive it. Errors are those
  // of RpcServer::Start.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(
      std::vector<rpc::Listener> listeners, const Options& options,
      const rpc::RpcServer& server);

  // The addresses, with the chosen ports in place of port 0.
  const std::vector<std::string>& addresses() const { return addresses_; }

 private:
  AdminServer() = default;

  std::vector<rpc::AddressClaim> claims_;
  std::vector<std::string> addresses_;
  std::unique_ptr<ServerStatus> status_;
  std::unique_ptr<HttpServer> http_;  // Last: it ends before its addresses do.
};

}  // namespace backboned::admin

#endif  // BACKBONED_SERVER_ADMIN_ADMIN_SERVER_H_
