#include "server/admin/admin_server.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include "absl/status/status.h"
#include "base/descriptor.h"
#include "server/admin/server_figures.h"
#include "server/admin/status_page.h"

namespace backboned::admin {
namespace {

Page HealthOf(const rpc::RpcServer& server) {
  if (server.is_serving()) return {.body = "serving\n"};
  return {.status = 503, .body = "not serving\n"};
}

Page MetricsOf(const rpc::RpcServer& server) {
  std::vector<prometheus::MetricFamily> families = server.metrics().Collect();
  for (prometheus::MetricFamily& family : FiguresOf(server)) {
    families.push_back(std::move(family));
  }
  return {.type = "text/plain; version=0.0.4; charset=utf-8",
          .body = prometheus::TextSerializer().Serialize(families)};
}

Pages PagesOf(const rpc::RpcServer& server, ServerStatus& status) {
  return {{"/", [page = StatusPage()] { return page; }},
          {"/healthz", [&server] { return HealthOf(server); }},
          {"/metrics", [&server] { return MetricsOf(server); }},
          {"/status.json", [&status] {
             return Page{.type = "application/json", .body = status.Json()};
           }}};
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(
    std::vector<rpc::Listener> listeners, const Options& options,
    const rpc::RpcServer& server) {
  std::unique_ptr<AdminServer> admin(new AdminServer());
  std::vector<Descriptor> sockets;
  for (rpc::Listener& listener : listeners) {
    absl::Status local = options.insecure_remote
                             ? absl::OkStatus()
                             : rpc::CheckLocal(listener.address);
    if (!local.ok()) return local;
    absl::StatusOr<rpc::AddressClaim> claim =
        rpc::AddressClaim::Make(listener.address);
    if (!claim.ok()) return claim.status();
    admin->claims_.push_back(*std::move(claim));
    absl::StatusOr<std::vector<Descriptor>> opened =
        rpc::ListenOn(listener.address);
    if (!opened.ok()) return opened.status();
    for (Descriptor& socket : *opened) {
      sockets.push_back(std::move(socket));
    }
    absl::Status admitted = rpc::Admit(listener);
    if (!admitted.ok()) return admitted;
    admin->addresses_.push_back(listener.address.text);
  }
  admin->status_ = std::make_unique<ServerStatus>(server, options.state_dir);
  admin->http_ =
      std::make_unique<HttpServer>(std::move(sockets), options.insecure_remote,
                                   PagesOf(server, *admin->status_));
  return admin;
}

}  // namespace backboned::admin
