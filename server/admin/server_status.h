// Tells what a server does now, for the page on which people watch it.

#ifndef BACKBONED_SERVER_ADMIN_SERVER_STATUS_H_
#define BACKBONED_SERVER_ADMIN_SERVER_STATUS_H_

#include <cstddef>
#include <string>
#include <vector>

#include "server/admin/recent_usage.h"
#include "server/rpc/rpc_server.h"

namespace backboned::admin {

// The most principals and instances that the status names. It counts the
// others.
inline constexpr size_t kMostListedPrincipals = 100;
inline constexpr size_t kMostListedInstances = 200;

// Reads the figures that a server keeps anyway, and what it knows of usage.
// Takes short locks only, as FiguresOf does.
//
// Thread-safe.
class ServerStatus {
 public:
  // `server` must outlive it. `state_dir` is empty if there is none.
  ServerStatus(const rpc::RpcServer& server, std::string state_dir);

  // Returns the status as JSON, whose fields are those of docs/status-page.md.
  std::string Json();

 private:
  const rpc::RpcServer& server_;
  const std::string state_dir_;
  const std::string processor_;
  const std::vector<std::string> descriptions_;  // Of the devices.
  RecentUsage usage_;
};

}  // namespace backboned::admin

#endif  // BACKBONED_SERVER_ADMIN_SERVER_STATUS_H_
