// Tests clients that ask and do not read, through TCP with HTTP/2's flow
// control, which the channel inside a process lacks.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "base/task.h"
#include "server/rpc/rpc_server.h"
#include "server/server.h"
#include "tests/server/rpc/plain_client.h"
#include "tests/testing/test_clock.h"

namespace backboned {
namespace {

constexpr int kCalls = 40;
constexpr absl::Duration kStallTimeout = absl::Milliseconds(80);

// Returns the number of threads of this process.
int64_t CountThreads() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

// Waits until `condition` holds, which must be soon.
template <typename Condition>
void WaitUntil(Condition condition, const std::string& what) {
  const absl::Time end = absl::Now() + absl::Seconds(20);
  while (!condition()) {
    ASSERT_LT(absl::Now(), end) << "not so: " << what;
    absl::SleepFor(absl::Milliseconds(1));
  }
}

// R5, R11
TEST(ThreadsTest, CallsHaveNoThread) {
  Server server({c10::Device(c10::DeviceType::CPU)}, 1, {});
  const auto rpc_server = rpc::RpcServer::Start(
      server, {.listeners = rpc::ParseListeners({"127.0.0.1:0"}).value()});
  ASSERT_THAT(rpc_server, IsOk());
  const auto channel = grpc::CreateChannel((*rpc_server)->addresses()[0],
                                           grpc::InsecureChannelCredentials());
  PlainClient client(channel);
  ASSERT_THAT(client.GetServer(), IsOk());
  const int64_t threads = CountThreads();
  std::vector<std::unique_ptr<RawCall>> held;
  while (held.size() < kCalls) {
    held.push_back(std::make_unique<RawCall>(channel, "SetParams"));
  }
  WaitUntil(
      [&] {
        return client.GetServer()->principal_usage().calls() == kCalls + 1;
      },
      "all calls are inside");
  // gRPC may start a few of its own meanwhile.
  EXPECT_LE(CountThreads(), threads + 4);
}

// The parameter is the size of a perceptron's hidden layers.
class UnreadAnswersTest : public ::testing::TestWithParam<int64_t> {
 protected:
  UnreadAnswersTest() {
    const absl::Status created =
        BlockOn(server_.CreateInstance(
                    {.name = "net",
                     .owner = "local",
                     .architecture = "mnistmlp",
                     .arguments = {{"num_classes", int64_t{10}},
                                   {"mlp_hidden_size", GetParam()}},
                     .beginning = Drawn{.seed = 0}}))
            .status();
    EXPECT_THAT(created, IsOk());
  }

  // Returns a channel of a client that takes 64 KiB of an answer that it
  // ignores.
  std::shared_ptr<grpc::Channel> Channel() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt("grpc.http2.lookahead_bytes", 65535);
    arguments.SetInt("grpc.http2.bdp_probe", 0);
    arguments.SetInt("grpc.use_local_subchannel_pool", 1);
    return grpc::CreateCustomChannel(rpc_server_->addresses()[0],
                                     grpc::InsecureChannelCredentials(),
                                     arguments);
  }

  TestClock clock_;
  Server server_{{c10::Device(c10::DeviceType::CPU)},
                 1,
                 {.limits = {.stall_timeout = kStallTimeout}},
                 {},
                 clock_};
  std::unique_ptr<rpc::RpcServer> rpc_server_ =
      rpc::RpcServer::Start(
          server_, {.listeners = rpc::ParseListeners({"127.0.0.1:0"}).value()})
          .value();
};

// R5, R11
TEST_P(UnreadAnswersTest, CountAsCallsUntilTheWatchdogEndsThem) {
  PlainClient client(Channel());
  const auto calls_inside = [&client] {
    return client.GetServer()->principal_usage().calls();
  };
  EXPECT_EQ(calls_inside(), 1);
  const int64_t threads = CountThreads();
  const auto channel = Channel();
  std::vector<std::unique_ptr<RawCall>> calls;
  v1::GetParamsRequest request;
  request.set_instance("net");
  for (int i = 0; i < kCalls; ++i) {
    calls.push_back(std::make_unique<RawCall>(channel, "GetParams"));
    ASSERT_TRUE(calls.back()->Send(request.SerializeAsString()));
    calls.back()->HalfClose();
  }
  WaitUntil([&] { return calls_inside() == kCalls + 1; },
            "each call that nobody reads is inside");
  // A call is inside before its answer begins.
  const auto ended = [&] {
    clock_.Advance(kStallTimeout);
    return calls_inside() == 1;
  };
  WaitUntil(ended, "the calls have ended");
  for (const auto& call : calls) {
    EXPECT_THAT(call->End(), StatusIs(absl::StatusCode::kCancelled));
  }
  // gRPC keeps eight threads that wait for calls.
  WaitUntil([&] { return CountThreads() <= threads + 8; },
            "the calls' threads have ended");
  EXPECT_THAT(client.GetInstance([] {
    v1::GetInstanceRequest of_net;
    of_net.set_instance("net");
    return of_net;
  }()),
              IsOk());
}

// An answer of one message of 0.8 MB, and one of three.
INSTANTIATE_TEST_SUITE_P(Sizes, UnreadAnswersTest, ::testing::Values(200, 512));

}  // namespace
}  // namespace backboned
