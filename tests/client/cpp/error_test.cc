#include "client/cpp/error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/client/cpp/fake_server.h"
#include "tests/testing/status_matchers.h"

namespace backboned::client {
namespace {

using ::absl::StatusCode;

TEST(ErrorTest, KeepsCodeAndMessage) {
  EXPECT_THAT(ToStatus(grpc::Status::OK), IsOk());
  EXPECT_THAT(ToStatus(grpc::Status(grpc::StatusCode::ABORTED, "stale")),
              StatusIs(StatusCode::kAborted, "stale"));
}

TEST(ErrorTest, FindsTheDetail) {
  v1::ErrorDetail detail;
  detail.set_reason(v1::ERROR_REASON_STALE_VERSION);
  const absl::Status status =
      ToStatus(ErrorOf(grpc::StatusCode::ABORTED, "stale", detail));
  EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_STALE_VERSION);
  EXPECT_EQ(DetailOf(status)->SerializeAsString(), detail.SerializeAsString());
  EXPECT_EQ(RetryDelayOf(status), std::nullopt);
}

TEST(ErrorTest, ReadsTheRetryDelay) {
  v1::ErrorDetail detail;
  detail.mutable_retry_delay()->set_seconds(1);
  detail.mutable_retry_delay()->set_nanos(500'000'000);
  EXPECT_EQ(
      RetryDelayOf(ToStatus(ErrorOf(grpc::StatusCode::ABORTED, "", detail))),
      absl::Milliseconds(1500));
}

TEST(ErrorTest, DoesWithoutADetail) {
  const absl::Status statuses[] = {
      absl::OkStatus(),
      absl::InternalError("ours"),
      ToStatus(grpc::Status(grpc::StatusCode::INTERNAL, "", "\xFF no message")),
      ToStatus(grpc::Status(grpc::StatusCode::INTERNAL, "")),
  };
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(DetailOf(status), std::nullopt);
    EXPECT_EQ(ReasonOf(status), v1::ERROR_REASON_UNSPECIFIED);
    EXPECT_EQ(RetryDelayOf(status), std::nullopt);
  }
}

}  // namespace
}  // namespace backboned::client
