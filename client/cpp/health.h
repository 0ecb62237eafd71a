// Asks a server whether it, or an instance, serves (grpc.health.v1).

#ifndef BACKBONED_CLIENT_CPP_HEALTH_H_
#define BACKBONED_CLIENT_CPP_HEALTH_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/client.h"
#include "grpc/health/v1/health.pb.h"

namespace backboned::client {

using Health = ::grpc::health::v1::HealthCheckResponse;

// Returns whether `instance` serves, or, if that is empty, the server as a
// whole. Returns kNotFound if there is no such instance.
absl::StatusOr<Health> CheckHealth(const Client& client,
                                   const std::string& instance = "");

// Tells `changed` that health now, and each time that it changes:
// SERVICE_UNKNOWN, as long as there is no such instance. Returns when the
// connection ends: why, and OK if the server ended it.
absl::Status WatchHealth(const Client& client, const std::string& instance,
                         const std::function<void(const Health&)>& changed);

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_HEALTH_H_
