// Asks a server whether it serves (grpc.health.v1).

#ifndef BACKBONED_CLIENT_CPP_HEALTH_H_
#define BACKBONED_CLIENT_CPP_HEALTH_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/client.h"
#include "grpc/health/v1/health.pb.h"

namespace backboned::client {

using Health = ::grpc::health::v1::HealthCheckResponse;

// Returns whether the server as a whole serves.
absl::StatusOr<Health> CheckHealth(const Client& client);

// Tells `changed` the health now, and each time that it changes. Returns when
// the connection ends: why, and OK if the server ended it.
absl::Status WatchHealth(const Client& client,
                         const std::function<void(const Health&)>& changed);

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_HEALTH_H_
