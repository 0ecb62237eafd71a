// Asks a server whether it serves: what `backboned --check` does.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_HEALTH_CHECK_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_HEALTH_CHECK_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace backboned::rpc {

// Returns how a program on the same machine reaches a server that was told to
// listen on `listen`: all addresses are reached by loopback.
//
// Returns kInvalidArgument if it is no address, or has port 0, which only the
// server knows.
absl::StatusOr<std::string> TargetOf(const std::string& listen);

// Asks `target` by grpc.health.v1 for the health of all of it; waits at most
// `timeout`.
//
// Returns kUnavailable if it does not answer, or answers that it does not
// serve.
absl::Status CheckHealth(const std::string& target, absl::Duration timeout);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_HEALTH_CHECK_H_
