#include "client/cpp/retry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "client/cpp/client.h"
#include "client/cpp/error.h"
#include "tests/client/cpp/fake_server.h"
#include "tests/client/cpp/recording_server.h"
#include "tests/testing/status_matchers.h"

namespace backboned::client {
namespace {

using ::absl::StatusCode;
using ::testing::IsEmpty;
using ::testing::Not;

grpc::Status Busy(const std::string& limit, absl::Duration delay) {
  v1::ErrorDetail detail;
  detail.set_reason(v1::ERROR_REASON_LIMIT_REACHED);
  detail.set_limit(limit);
  const int64_t nanos = absl::ToInt64Nanoseconds(delay);
  detail.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
  detail.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(nanos % 1'000'000'000));
  return ErrorOf(grpc::StatusCode::RESOURCE_EXHAUSTED, "busy", detail);
}

const grpc::Status kGone(grpc::StatusCode::UNAVAILABLE, "gone");

TEST(RetryTest, WaitsAsLongAsABusyServerAsks) {
  for (const char* limit : {"max-calls", "max-queued", "max-queued-by-run",
                            "max-in-flight-bytes"}) {
    const absl::Status status = ToStatus(Busy(limit, absl::Milliseconds(400)));
    EXPECT_EQ(PauseAfter(status, 1, 0), absl::Milliseconds(400)) << limit;
    EXPECT_EQ(PauseAfter(status, 7, 1), absl::Milliseconds(500)) << limit;
  }
}

TEST(RetryTest, WaitsLongerEachTimeForAServerThatIsGone) {
  const absl::Status status = ToStatus(kGone);
  EXPECT_EQ(PauseAfter(status, 1, 0), absl::Milliseconds(100));
  EXPECT_EQ(PauseAfter(status, 2, 0), absl::Milliseconds(200));
  EXPECT_EQ(PauseAfter(status, 3, 1), absl::Milliseconds(500));
  EXPECT_EQ(PauseAfter(status, 6, 0), absl::Seconds(2));
  EXPECT_EQ(PauseAfter(status, std::numeric_limits<int>::max(), 0),
            absl::Seconds(2));
}

TEST(RetryTest, DoesNotWaitInVain) {
  // Limits on what the caller keeps, and failures of calls that may have begun.
  for (const char* limit : {"max-tapes", "max-memory-bytes", ""}) {
    EXPECT_EQ(PauseAfter(ToStatus(Busy(limit, absl::Milliseconds(1))), 1, 0),
              std::nullopt)
        << limit;
  }
  v1::ErrorDetail never;
  never.set_limit("max-in-flight-bytes");
  EXPECT_EQ(PauseAfter(ToStatus(ErrorOf(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                        "too large", never)),
                       1, 0),
            std::nullopt);
  for (const StatusCode code :
       {StatusCode::kAborted, StatusCode::kCancelled,
        StatusCode::kDeadlineExceeded, StatusCode::kInternal,
        StatusCode::kNotFound, StatusCode::kResourceExhausted}) {
    EXPECT_EQ(PauseAfter(absl::Status(code, ""), 1, 0), std::nullopt);
  }
}

class RetriedCallTest : public testing::Test {
 protected:
  Backbone Net(const Options& options = {}) {
    return Client::Connect(server_.target(), options).value().backbone("net");
  }

  RecordingServer server_;
};

TEST_F(RetriedCallTest, IsTheSameRequestEachTime) {
  const Backbone net = Net();
  server_.EndWith({kGone, Busy("max-calls", absl::Milliseconds(1))});
  const std::string params(12, 'x');
  EXPECT_THAT(net.SetParams(std::as_bytes(std::span(params))),
              StatusIs(StatusCode::kUnimplemented));
  const std::vector<RecordingServer::Attempt> attempts = server_.Take();
  ASSERT_EQ(attempts.size(), 3);
  EXPECT_THAT(attempts[0].request_id(), Not(IsEmpty()));
  for (const RecordingServer::Attempt& attempt : attempts) {
    EXPECT_EQ(attempt.message->SerializeAsString(),
              attempts[0].message->SerializeAsString());
  }
}

TEST_F(RetriedCallTest, IsTheSameWithoutAStream) {
  const Backbone net = Net();
  server_.EndWith({kGone});
  EXPECT_THAT(net.Step(), StatusIs(StatusCode::kUnimplemented));
  const std::vector<RecordingServer::Attempt> attempts = server_.Take();
  ASSERT_EQ(attempts.size(), 2);
  EXPECT_THAT(attempts[0].request_id(), Not(IsEmpty()));
  EXPECT_EQ(attempts[1].request_id(), attempts[0].request_id());
}

TEST_F(RetriedCallTest, KeepsTheCallersRequestId) {
  v1::StepRequest request;
  request.set_request_id("mine");
  const Backbone net = Net();
  EXPECT_THAT(net.Step(request), StatusIs(StatusCode::kUnimplemented));
  EXPECT_EQ(server_.Take().at(0).request_id(), "mine");
}

// The pause would end after the deadline, or after the time for repetitions.
TEST_F(RetriedCallTest, IsOverWhenThereIsNoTimeLeft) {
  Options deadline;
  deadline.call_timeout = absl::Seconds(59);
  deadline.retry_timeout = absl::Hours(1);
  Options patience;
  patience.call_timeout = absl::InfiniteDuration();
  patience.retry_timeout = absl::Seconds(59);
  for (const Options& options : {deadline, patience}) {
    const Backbone net = Net(options);
    server_.EndWith({Busy("max-calls", absl::Minutes(1))});
    EXPECT_THAT(net.Step(), StatusIs(StatusCode::kResourceExhausted, "busy"));
    EXPECT_EQ(server_.Take().size(), 1);
  }
}

TEST_F(RetriedCallTest, IsMadeOnceIfTheOptionsSaySo) {
  Options options;
  options.retry_timeout = absl::ZeroDuration();
  const Backbone net = Net(options);
  server_.EndWith({kGone});
  EXPECT_THAT(net.GetParams(), StatusIs(StatusCode::kUnavailable, "gone"));
  EXPECT_EQ(server_.Take().size(), 1);
}

TEST(RetriedAnswerTest, IsThatOfTheLastAttempt) {
  FakeServer server;
  server.backbones.params = "new";
  std::vector<grpc::Status> ends = {grpc::Status::OK, kGone};
  server.backbones.end = [&] {
    const grpc::Status status = ends.back();
    ends.pop_back();
    return status;
  };
  const Backbone net = Client::Connect(server.target()).value().backbone("net");
  std::string place = "old";
  ASSERT_THAT(net.GetParams({}, std::as_writable_bytes(std::span(place))),
              IsOk());
  EXPECT_THAT(ends, IsEmpty());
  EXPECT_EQ(place, "new");
}

}  // namespace
}  // namespace backboned::client
