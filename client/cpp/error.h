// What a failed call says to a program.
//
// Every call that fails gives an absl::Status with the server's code and
// sentence. The machine-readable part travels in it as a payload:
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

// The status of a call that ended, with the server's ErrorDetail if it sent
// one.
absl::Status ToStatus(const grpc::Status& status);

// The server's ErrorDetail: reason, limit and numbers. nullopt if there is
// none: of an error that did not come from a Backboned server.
std::optional<v1::ErrorDetail> DetailOf(const absl::Status& status);

// The detail's reason; ERROR_REASON_UNSPECIFIED if there is none.
v1::ErrorReason ReasonOf(const absl::Status& status);

// After which time a retry may succeed. nullopt: a retry does not help.
std::optional<absl::Duration> RetryDelayOf(const absl::Status& status);

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_ERROR_H_
