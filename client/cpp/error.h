// Reads the machine-readable part of a failed call's status.
//
// Every call that fails returns an absl::Status with the server's code and
// message. A payload of the status has the machine-readable part:
//
//   if (ReasonOf(status) == v1::ERROR_REASON_STALE_VERSION) ...

#ifndef BACKBONED_CLIENT_CPP_ERROR_H_
#define BACKBONED_CLIENT_CPP_ERROR_H_

#include <grpcpp/support/status.h>

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "backboned/v1/error.pb.h"

namespace backboned::client {

// Returns the status of an ended call, with the server's ErrorDetail if there
// is one.
absl::Status ToStatus(const grpc::Status& status);

// Returns the same as the contract has it.
v1::StatusDetails ToDetails(const absl::Status& status);

// Returns the server's ErrorDetail: reason, limit and numbers; nullopt if there
// is none, as in errors that do not come from a Backboned server.
std::optional<v1::ErrorDetail> DetailOf(const absl::Status& status);

// Returns the detail's reason; ERROR_REASON_UNSPECIFIED without a detail.
v1::ErrorReason ReasonOf(const absl::Status& status);

// Returns the time until a retry may succeed. nullopt: a retry does not help.
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_ERROR_H_
