// Turns an absl::Status into the status that gRPC sends.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_STATUS_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_STATUS_H_

#include <grpcpp/support/status.h>

#include <string_view>

#include "absl/status/status.h"
#include "base/errors.h"

namespace backboned::rpc {

// Returns the status for the wire: the same code, the message cut to 1024
// bytes, and in the details a StatusDetails with one ErrorDetail. An error
// without a reason gets the usual reason of its code.
grpc::Status ToGrpc(const absl::Status& status);

// Returns the reason that `ToGrpc` puts into the details.
Reason ReasonOrDefault(const absl::Status& status);

// Returns a reason's name as error.proto spells it, without the prefix:
// `SHAPE_MISMATCH`.
std::string_view ReasonName(Reason reason);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_STATUS_H_
