// Turns an absl::Status into the one that travels.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_STATUS_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_STATUS_H_

#include <grpcpp/support/status.h>

#include <string_view>

#include "absl/status/status.h"
#include "backboned/v1/error.pb.h"
#include "base/errors.h"

namespace backboned::rpc {

// Returns `status` as the wire has it: the same code, the message cut to 1024
// bytes, and for an error one ErrorDetail. An error without a reason gets the
// usual reason of its code.
v1::StatusDetails ToProto(const absl::Status& status);

// Returns the same as the status of an RPC.
grpc::Status ToGrpc(const absl::Status& status);

// Returns the reason that the details have.
Reason ReasonOrDefault(const absl::Status& status);

// Returns the error of messages that do not follow the contract.
absl::Status Malformed(std::string_view message);

// Returns the error of a call whose client made no progress.
absl::Status Stalled();

// Returns the error of calls that come while the server shuts down.
absl::Status Draining();

// Returns a reason's name as error.proto spells it, without the prefix:
// `SHAPE_MISMATCH`.
std::string_view ReasonName(Reason reason);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_STATUS_H_
