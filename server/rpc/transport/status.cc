#include "server/rpc/transport/status.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "backboned/v1/error.pb.h"
#include "server/rpc/transport/stall_watchdog.h"

namespace backboned::rpc {
namespace {

v1::ErrorReason ProtoReason(Reason reason) {
  return static_cast<v1::ErrorReason>(static_cast<int>(reason));
}

v1::ErrorDetail Detail(const absl::Status& status) {
  v1::ErrorDetail detail;
  detail.set_reason(ProtoReason(ReasonOrDefault(status)));
  const std::optional<Limit> limit = LimitOf(status);
  if (!limit.has_value()) return detail;
  detail.set_limit(limit->name);
  detail.set_limit_value(limit->value);
  detail.set_requested_value(limit->requested);
  detail.set_scope(static_cast<v1::LimitScope>(limit->scope));
  if (limit->retry_delay > absl::ZeroDuration()) {
    *detail.mutable_retry_delay() =
        google::protobuf::util::TimeUtil::NanosecondsToDuration(
            absl::ToInt64Nanoseconds(limit->retry_delay));
  }
  return detail;
}

}  // namespace

Reason ReasonOrDefault(const absl::Status& status) {
  const std::optional<Reason> reason = ReasonOf(status);
  if (reason.has_value()) return *reason;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return Reason::kMalformedStream;
    case absl::StatusCode::kResourceExhausted:
      return Reason::kLimitReached;
    case absl::StatusCode::kInternal:
      return Reason::kComputeFailed;
    default:
      return Reason{};
  }
}

std::string_view ReasonName(Reason reason) {
  constexpr std::string_view kPrefix = "ERROR_REASON_";
  const std::string& name = v1::ErrorReason_Name(ProtoReason(reason));
  return std::string_view(name).substr(std::min(kPrefix.size(), name.size()));
}

v1::StatusDetails ToProto(const absl::Status& status) {
  v1::StatusDetails details;
  details.set_code(static_cast<int>(status.code()));
  if (status.ok()) return details;
  details.set_message(
      std::string(status.message().substr(0, kMaxMessageBytes)));
  details.add_details()->PackFrom(Detail(status));
  return details;
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const v1::StatusDetails details = ToProto(status);
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      details.message(), details.SerializeAsString());
}

absl::Status Malformed(std::string_view message) {
  return Error(absl::StatusCode::kInvalidArgument, Reason::kMalformedStream,
               message);
}

absl::Status Draining() {
  return Error(absl::StatusCode::kUnavailable, Reason::kDraining,
               "the server is shutting down");
}

absl::Status Stalled() {
  return Error(absl::StatusCode::kCancelled, Reason::kClientStalled,
               absl::StrCat("the transfer moved less than ",
                            StallWatchdog::kProgressBytes >> 10,
                            " KiB within stall-timeout, or lasted ",
                            StallWatchdog::kMostTimeouts, " times as long"));
}

}  // namespace backboned::rpc
