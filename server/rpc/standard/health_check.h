// Asks a server whether it serves, for `backboned --check`.

#ifndef BACKBONED_SERVER_RPC_STANDARD_HEALTH_CHECK_H_
#define BACKBONED_SERVER_RPC_STANDARD_HEALTH_CHECK_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace backboned::rpc {

// Returns the target by which a program on the same machine reaches a server
// that listens on `listen`: all addresses are reached by loopback.
//
// Returns kInvalidArgument if `listen` is no address, or has port 0, whose
// meaning only the server knows.
absl::StatusOr<std::string> TargetOf(const std::string& listen);

// Asks `target` by grpc.health.v1 for its overall health; waits at most
// `timeout`.
//
// Returns kUnavailable if the server does not answer, or answers that it does
// not serve.
absl::Status CheckHealth(const std::string& target, absl::Duration timeout);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_STANDARD_HEALTH_CHECK_H_
