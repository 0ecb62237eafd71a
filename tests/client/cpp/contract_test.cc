// Checks that the client has every verb of the contract.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/cpp/client.h"
#include "tests/client/cpp/recording_server.h"
#include "tests/testing/status_matchers.h"

namespace backboned::client {
namespace {

using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAreArray;

// Returns a forward that changes something.
v1::ForwardHeader TapedForward() {
  v1::ForwardHeader header;
  header.set_tape(true);
  return header;
}

// Calls every verb once.
void CallAll(const Client& client) {
  const auto refused = StatusIs(absl::StatusCode::kUnimplemented, "only noted");
  EXPECT_THAT(client.GetServer(), refused);
  EXPECT_THAT(client.ListArchitectures(), refused);
  EXPECT_THAT(client.ListBenchmarks(), refused);
  EXPECT_THAT(client.CreateInstance({}), refused);
  EXPECT_THAT(client.CloneInstance({}), refused);
  EXPECT_THAT(client.UpdateInstance({}), refused);
  EXPECT_THAT(client.GetInstance({}), refused);
  EXPECT_THAT(client.ListInstances(), refused);
  EXPECT_THAT(client.DeleteInstance({}), refused);
  EXPECT_THAT(client.SaveCheckpoint({}), refused);
  EXPECT_THAT(client.LoadCheckpoint({}), refused);
  EXPECT_THAT(client.ListCheckpoints(), refused);
  EXPECT_THAT(client.DeleteCheckpoint({}), refused);
  EXPECT_THAT(client.ListUsage(), refused);
  const Backbone net = client.backbone("net");
  EXPECT_THAT(net.Forward(TapedForward(), {}), refused);
  EXPECT_THAT(net.Backward({}, {}), refused);
  EXPECT_THAT(net.TrainStep({}, {}), refused);
  EXPECT_THAT(net.ReleaseTapes({}), refused);
  EXPECT_THAT(net.GetParams(), refused);
  EXPECT_THAT(net.SetParams({}), refused);
  EXPECT_THAT(net.GetGrads(), refused);
  EXPECT_THAT(net.SetGrads({}), refused);
  EXPECT_THAT(net.ZeroGrads(), refused);
  EXPECT_THAT(net.GetBuffers(), refused);
  EXPECT_THAT(net.SetBuffers({}, {}), refused);
  EXPECT_THAT(net.ConfigureOptimizer({}), refused);
  EXPECT_THAT(net.Step(), refused);
  EXPECT_THAT(net.GetOptimizerState(), refused);
  EXPECT_THAT(net.SetOptimizerState({}, {}), refused);
  EXPECT_THAT(net.Extract({}), refused);
}

// Calls every verb that can fill the caller's memory.
void FillAll(const Backbone& net) {
  const auto refused = StatusIs(absl::StatusCode::kUnimplemented, "only noted");
  EXPECT_THAT(net.Forward(TapedForward(), {}, Destinations()), refused);
  EXPECT_THAT(net.Backward({}, {}, Destinations()), refused);
  EXPECT_THAT(net.TrainStep({}, {}, Destinations()), refused);
  EXPECT_THAT(net.GetParams({}, std::span<std::byte>()), refused);
  EXPECT_THAT(net.GetGrads({}, std::span<std::byte>()), refused);
  EXPECT_THAT(net.GetBuffers({}, Destinations()), refused);
  EXPECT_THAT(net.GetOptimizerState({}, Destinations()), refused);
}

std::vector<std::string> NamesOf(
    const std::vector<const google::protobuf::MethodDescriptor*>& methods) {
  std::vector<std::string> names;
  for (const auto* method : methods) names.push_back(method->full_name());
  return names;
}

std::vector<std::string> NamesOf(
    const std::vector<RecordingServer::Attempt>& attempts) {
  std::vector<std::string> names;
  for (const auto& attempt : attempts) {
    names.push_back(attempt.method->full_name());
  }
  return names;
}

class ContractTest : public testing::Test {
 protected:
  Client Connected(const Options& options = {}) {
    return Client::Connect(server_.target(), options).value();
  }

  RecordingServer server_;
};

// A new method of the contract fails here until it has a verb.
TEST_F(ContractTest, EveryMethodHasAVerb) {
  CallAll(Connected());
  EXPECT_THAT(NamesOf(server_.Take()),
              UnorderedElementsAreArray(NamesOf(MethodsOfTheContract())));
}

TEST_F(ContractTest, EveryStreamedAnswerMayFillTheCallersMemory) {
  std::vector<const google::protobuf::MethodDescriptor*> streamed;
  for (const auto* method : MethodsOfTheContract()) {
    if (method->server_streaming()) streamed.push_back(method);
  }
  FillAll(Connected().backbone("net"));
  EXPECT_THAT(NamesOf(server_.Take()),
              UnorderedElementsAreArray(NamesOf(streamed)));
}

// Returns whether the method's requests may have a request id.
bool HasRequestId(const google::protobuf::MethodDescriptor& method) {
  const google::protobuf::Descriptor* message = method.input_type();
  if (method.client_streaming()) {
    message = message->FindFieldByName("header")->message_type();
  }
  return message->FindFieldByName("request_id") != nullptr;
}

TEST_F(ContractTest, EveryChangeHasARequestIdOfItsOwn) {
  CallAll(Connected());
  FillAll(Connected().backbone("net"));
  std::vector<std::string> ids;
  for (const RecordingServer::Attempt& attempt : server_.Take()) {
    if (!HasRequestId(*attempt.method)) continue;
    EXPECT_THAT(attempt.request_id(), testing::MatchesRegex("[0-9a-f]{32}"))
        << attempt.method->name();
    ids.push_back(attempt.request_id());
  }
  EXPECT_GE(ids.size(), 16);
  std::ranges::sort(ids);
  EXPECT_EQ(std::ranges::adjacent_find(ids), ids.end());
}

TEST_F(ContractTest, AForwardThatChangesNothingHasNoRequestId) {
  const Backbone net = Connected().backbone("net");
  EXPECT_FALSE(net.Forward({}, {}).ok());
  v1::ForwardHeader training;
  training.set_training(true);
  EXPECT_FALSE(net.Forward(training, {}).ok());
  const std::vector<RecordingServer::Attempt> attempts = server_.Take();
  ASSERT_EQ(attempts.size(), 2);
  EXPECT_EQ(attempts[0].request_id(), "");
  EXPECT_THAT(attempts[1].request_id(), Not(IsEmpty()));
}

TEST_F(ContractTest, WithoutRepetitionsNothingHasARequestId) {
  Options options;
  options.retry_timeout = absl::ZeroDuration();
  CallAll(Connected(options));
  for (const RecordingServer::Attempt& attempt : server_.Take()) {
    EXPECT_EQ(attempt.request_id(), "") << attempt.method->name();
  }
}

}  // namespace
}  // namespace backboned::client
