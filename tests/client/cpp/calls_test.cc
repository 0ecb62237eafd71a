#include "client/cpp/calls.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "client/cpp/connection.h"
#include "client/cpp/error.h"
#include "tests/client/cpp/fake_server.h"
#include "tests/testing/status_matchers.h"

namespace backboned::client {
namespace {

using ::absl::StatusCode;
using ::testing::SizeIs;

using Field = v1::CallsRequest;

class CallsTest : public testing::Test {
 protected:
  void Connect(Options options = {}) {
    connection_ = std::make_unique<Connection>(
        grpc::CreateChannel(server_.target(),
                            grpc::InsecureChannelCredentials()),
        std::move(options));
  }

  Calls& calls() { return connection_->calls(); }

  // Begins a SetParams of `bytes`, which must live as long as the call.
  std::unique_ptr<Calls::Call> SetParams(const std::string& bytes,
                                         const Calls::Call* after = nullptr) {
    *set_params_.mutable_spec() = ByteSpec(bytes);
    return calls().Begin({.field = Field::kSetParamsFieldNumber,
                          .header = set_params_.SerializeAsString(),
                          .tensors = {std::as_bytes(std::span(bytes))}},
                         after);
  }

  std::unique_ptr<Calls::Call> GetParams(
      absl::Duration timeout = absl::InfiniteDuration()) {
    return calls().Begin({.field = Field::kGetParamsFieldNumber,
                          .header = get_params_.SerializeAsString(),
                          .timeout = timeout});
  }

  // Waits for a call's end, and gives the bytes of its answer.
  absl::StatusOr<std::string> Await(Calls::Call& call, size_t bytes = 0) {
    absl::StatusOr<wire::Message> result = calls().WaitForResult(call);
    if (!result.ok()) return result.status();
    std::string place(bytes, '.');
    const absl::Status received = calls().Receive(
        call, *std::move(result), {std::as_writable_bytes(std::span(place))});
    if (!received.ok()) return received;
    return place;
  }

  FakeServer server_;
  v1::SetParamsHeader set_params_;
  v1::GetParamsRequest get_params_;
  std::unique_ptr<Connection> connection_;
};

TEST_F(CallsTest, CallsNeedNotBeAwaitedInOrder) {
  Connect();
  const std::string params = "params";
  const auto set = SetParams(params);
  const auto get = GetParams();
  EXPECT_EQ(*Await(*get, params.size()), params);
  EXPECT_THAT(Await(*set), IsOk());
}

TEST_F(CallsTest, ManyThreadsShareTheStream) {
  Connect();
  server_.backbones.params = "params";
  std::set<const grpc::ServerContext*> streams;
  server_.backbones.hook = [&](grpc::ServerContext& context) {
    streams.insert(&context);
    return grpc::Status::OK;
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 50; ++j) {
        EXPECT_EQ(*Await(*GetParams(), 6), "params");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(streams, SizeIs(1));
}

TEST_F(CallsTest, AFlushedCallNeedsNobodyWhoWaits) {
  Connect();
  absl::Notification arrived;
  server_.backbones.hook = [&](grpc::ServerContext&) {
    arrived.Notify();
    return grpc::Status::OK;
  };
  const std::string params(size_t{3} << 20, 'x');  // Several parts.
  const auto set = SetParams(params);
  EXPECT_FALSE(calls().Flush(*set, absl::InfinitePast()));
  EXPECT_TRUE(calls().Flush(*set, absl::Now() + absl::Seconds(20)));
  EXPECT_TRUE(arrived.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_THAT(Await(*set), IsOk());
  EXPECT_TRUE(calls().Flush(*set, absl::InfinitePast()));
}

TEST_F(CallsTest, AnUnansweredCallIsSentAgainInOrder) {
  Connect();
  server_.backbones.params = "old";
  int breaks = 1;
  server_.backbones.breaks_now = [&] { return breaks-- > 0; };
  const std::string params = "new";
  const auto set = SetParams(params);
  const auto get = GetParams();
  EXPECT_EQ(*Await(*get, 3), "new");
  EXPECT_THAT(Await(*set), IsOk());
}

TEST_F(CallsTest, ACallIsNotSentAgainWithoutTimeForIt) {
  Options options;
  options.retry_timeout = absl::ZeroDuration();
  Connect(options);
  server_.backbones.breaks_now = [] { return true; };
  const std::string params = "new";
  EXPECT_THAT(Await(*SetParams(params)), StatusIs(StatusCode::kUnavailable));
  server_.backbones.breaks_now = [] { return false; };
  EXPECT_EQ(*Await(*GetParams(), 3), "new");  // Over another stream.
}

TEST_F(CallsTest, ServersThatComeBackAreFound) {
  Options options;
  options.retry_timeout = absl::Seconds(20);
  Connect(options);
  int refused = 2;
  server_.backbones.hook = [&](grpc::ServerContext& context) {
    if (refused-- > 0) context.TryCancel();  // Before any answer.
    return grpc::Status::OK;
  };
  server_.backbones.params = "params";
  EXPECT_EQ(*Await(*GetParams(), 6), "params");
  EXPECT_LT(refused, 0);
}

TEST_F(CallsTest, AFollowerIsNotBegunAfterAFailure) {
  Connect();
  server_.backbones.end = [] {
    return grpc::Status(grpc::StatusCode::ABORTED, "stale");
  };
  const std::string first = "1", second = "2";
  const auto failed = SetParams(first);
  EXPECT_THAT(Await(*failed), StatusIs(StatusCode::kAborted, "stale"));
  const auto follower = SetParams(second, failed.get());
  const auto refused = Await(*follower);
  EXPECT_THAT(refused, StatusIs(StatusCode::kAborted));
  EXPECT_EQ(ReasonOf(refused.status()), v1::ERROR_REASON_NOT_BEGUN);
  EXPECT_EQ(server_.backbones.params, "1");
}

TEST_F(CallsTest, ADeadlineEndsTheWaitAndNothingElse) {
  Connect();
  absl::Notification released;
  server_.backbones.hook = [&](grpc::ServerContext&) {
    released.WaitForNotification();
    return grpc::Status::OK;
  };
  const auto late = GetParams(absl::Milliseconds(20));
  EXPECT_THAT(Await(*late), StatusIs(StatusCode::kDeadlineExceeded));
  released.Notify();
  server_.backbones.params = "params";
  EXPECT_EQ(*Await(*GetParams(), 6), "params");
}

TEST_F(CallsTest, ACallThatIsDroppedGivesItsMemoryBack) {
  Connect();
  absl::Notification released;
  server_.backbones.hook = [&](grpc::ServerContext&) {
    released.WaitForNotification();
    return grpc::Status::OK;
  };
  {
    // More than the connection holds, so most of it is not sent.
    const auto params = std::make_unique<std::string>(40 << 20, 'x');
    SetParams(*params).reset();
  }
  released.Notify();
  server_.backbones.params = "params";
  EXPECT_EQ(*Await(*GetParams(), 6), "params");
}

}  // namespace
}  // namespace backboned::client
