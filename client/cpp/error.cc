#include "client/cpp/error.h"

#include <string>

#include "absl/strings/cord.h"

namespace backboned::client {
namespace {

constexpr char kPayloadType[] = "type.googleapis.com/backboned.v1.ErrorDetail";

}  // namespace

absl::Status ToStatus(const grpc::Status& status) {
  absl::Status converted(static_cast<absl::StatusCode>(status.error_code()),
                         status.error_message());
  v1::StatusDetails details;
  if (status.ok() || !details.ParseFromString(status.error_details())) {
    return converted;
  }
  for (const google::protobuf::Any& any : details.details()) {
    if (any.Is<v1::ErrorDetail>()) {
      converted.SetPayload(kPayloadType, absl::Cord(any.value()));
    }
  }
  return converted;
}

v1::StatusDetails ToDetails(const absl::Status& status) {
  v1::StatusDetails details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  if (const auto detail = DetailOf(status)) {
    details.add_details()->PackFrom(*detail);
  }
  return details;
}

std::optional<v1::ErrorDetail> DetailOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadType);
  v1::ErrorDetail detail;
  if (!payload || !detail.ParseFromString(std::string(*payload))) {
    return std::nullopt;
  }
  return detail;
}

v1::ErrorReason ReasonOf(const absl::Status& status) {
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  return detail ? detail->reason() : v1::ERROR_REASON_UNSPECIFIED;
}

std::optional<absl::Duration> RetryDelayOf(const absl::Status& status) {
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  if (!detail || !detail->has_retry_delay()) return std::nullopt;
  return absl::Seconds(detail->retry_delay().seconds()) +
         absl::Nanoseconds(detail->retry_delay().nanos());
}

}  // namespace backboned::client
