// Tests who calls, by each kind of listener, and what a caller may do with
// another's instances.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/server/rpc/callers_test.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StrEq;

// Methods that name no instance, and those that change the one they name.
const std::vector<std::string> kNameNone = {
    "Calls",          "CreateInstance",    "DeleteCheckpoint",
    "GetServer",      "ListArchitectures", "ListBenchmarks",
    "ListInstances",  "ListCheckpoints",   "ListUsage",
    "LoadCheckpoint", "ReleaseTapes"};
const std::vector<std::string> kChange = {
    "ConfigureOptimizer", "DeleteInstance", "SetBuffers", "SetGrads",
    "SetOptimizerState",  "SetParams",      "Step",       "TrainStep",
    "UpdateInstance",     "ZeroGrads"};

bool IsIn(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::find(names, name) != names.end();
}

// Sets `instance` of a request, or of its header. Returns whether it has one.
bool SetInstance(google::protobuf::Message& request, const std::string& name) {
  const google::protobuf::Reflection& reflection = *request.GetReflection();
  const google::protobuf::Descriptor& type = *request.GetDescriptor();
  if (const auto* field = type.FindFieldByName("instance")) {
    reflection.SetString(&request, field, name);
    return true;
  }
  const auto* header = type.FindFieldByName("header");
  return header != nullptr && header->message_type() != nullptr &&
         SetInstance(*reflection.MutableMessage(&request, header), name);
}

// Those that a caller with the right to infer may not call.
bool NeedsTrain(const std::string& method) {
  return IsIn(kChange, method) || method == "CreateInstance" ||
         method == "CloneInstance" || method == "SaveCheckpoint" ||
         method == "LoadCheckpoint" || method == "DeleteCheckpoint";
}

// A method's path, and a request that names an instance; empty: it names none.
struct Request {
  std::string method;
  std::string path;
  std::string message;
};

std::vector<Request> RequestsOf(const std::string& instance) {
  std::vector<Request> requests;
  for (const auto* message :
       {v1::ForwardHeader::descriptor(), v1::GetServerRequest::descriptor()}) {
    const google::protobuf::ServiceDescriptor* service =
        message->file()->service(0);
    for (int i = 0; i < service->method_count(); ++i) {
      const google::protobuf::MethodDescriptor& method = *service->method(i);
      const std::unique_ptr<google::protobuf::Message> request(
          google::protobuf::MessageFactory::generated_factory()
              ->GetPrototype(method.input_type())
              ->New());
      const bool names_one = SetInstance(*request, instance);
      requests.push_back(
          {.method = method.name(),
           .path = "/" + service->full_name() + "/" + method.name(),
           .message = names_one ? request->SerializeAsString() : ""});
    }
  }
  return requests;
}

class AccessTest : public CallersTest {
 protected:
  PlainClient ClientOf(const std::string& socket) const {
    return PlainClient(ChannelOf(socket));
  }

  // Asks for the principal that the server takes the caller for.
  absl::StatusOr<std::string> Principal(
      const std::string& socket,
      const std::multimap<std::string, std::string>& metadata) const {
    RawCall call(ChannelOf(socket), "/backboned.v1.InstanceService/GetServer",
                 {.metadata = metadata});
    call.Send("");
    absl::Status status = call.End();
    if (!status.ok()) return status;
    v1::GetServerResponse response;
    EXPECT_TRUE(response.ParseFromString(call.messages().at(0)));
    return response.principal();
  }

  void Share(bool shared) const {
    v1::UpdateInstanceRequest request;
    request.set_instance("net");
    request.mutable_settings()->set_shared(shared);
    request.mutable_update_mask()->add_paths("shared");
    EXPECT_THAT(ClientOf("alice").UpdateInstance(request), IsOk());
  }

  std::vector<std::string> Listed(const std::string& socket) const {
    const v1::ListInstancesResponse list =
        ClientOf(socket).ListInstances().value();
    std::vector<std::string> names;
    for (const v1::Instance& instance : list.instances()) {
      names.push_back(instance.owner() + "/" + instance.name());
    }
    return names;
  }

  // Calls a method by a request of RequestsOf.
  absl::Status Ask(
      const std::string& socket, const Request& request,
      const std::multimap<std::string, std::string>& metadata = {}) const {
    RawCall call(ChannelOf(socket), request.path, {.metadata = metadata});
    call.Send(request.message);
    return call.End();
  }
};

auto NotPermitted() {
  return FailsWith(absl::StatusCode::kPermissionDenied,
                   v1::ERROR_REASON_NOT_PERMITTED,
                   HasSubstr("\"alice/net\" belongs to alice"));
}

auto Unseen() {
  return FailsWith(absl::StatusCode::kNotFound,
                   v1::ERROR_REASON_INSTANCE_NOT_FOUND,
                   "no instance \"alice/net\"");
}

auto MayOnlyInfer() {
  return FailsWith(absl::StatusCode::kPermissionDenied,
                   v1::ERROR_REASON_NOT_PERMITTED,
                   HasSubstr("alice has the right to infer"));
}

auto Refused(const char* message) {
  return FailsWith(absl::StatusCode::kUnauthenticated,
                   v1::ERROR_REASON_IDENTITY_REFUSED, HasSubstr(message));
}

TEST_F(AccessTest, AListenerDecidesWhoCalls) {
  EXPECT_THAT(Principal("local", {}), IsOkAndHolds(StrEq("local")));
  EXPECT_THAT(Principal("alice", {}), IsOkAndHolds(StrEq("alice")));
  EXPECT_THAT(Principal("bob", {}), IsOkAndHolds(StrEq("bob")));
}

TEST_F(AccessTest, ConnectionsKeepTheirPrincipal) {
  for (const auto& [socket, principal] : std::map<std::string, std::string>{
           {"alice", "alice"}, {"accounts", "local"}}) {
    PlainClient client(ChannelOf(socket));
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(client.GetServer()->principal(), principal);
    }
  }
}

TEST_F(AccessTest, NobodyButAFrontNamesACaller) {
  for (const char* socket : {"local", "alice", "accounts"}) {
    EXPECT_THAT(Principal(socket, {{kKey, "alice"}}),
                Refused("for the server's front alone"));
  }
}

TEST_F(AccessTest, AFrontNamesOneCaller) {
  EXPECT_THAT(Principal("front", {{kKey, "carol"}}),
              IsOkAndHolds(StrEq("carol")));
  EXPECT_THAT(Principal("front", {}), Refused("names no caller"));
  EXPECT_THAT(Principal("front", {{kKey, "alice"}, {kKey, "alice"}}),
              Refused("names several callers"));
  for (const char* name :
       {"", "Alice", "a b", "-a", "a/b", "server", "local"}) {
    EXPECT_THAT(Principal("front", {{kKey, name}}), Refused(kKey)) << name;
  }
}

TEST_F(AccessTest, NoMethodTouchesWhatIsAnothers) {
  for (const Request& request : RequestsOf("alice/net")) {
    EXPECT_EQ(request.message.empty(), IsIn(kNameNone, request.method))
        << request.method;
    if (request.message.empty()) continue;
    EXPECT_THAT(Ask("bob", request), Unseen()) << request.method;
  }
  EXPECT_THAT(ClientOf("alice").GetInstance([] {
    v1::GetInstanceRequest own;
    own.set_instance("net");
    return own;
  }()),
              IsOk());
}

TEST_F(AccessTest, AnothersInstanceIsNoColumn) {
  v1::CreateInstanceRequest request;
  request.set_architecture("mnistmlp");
  request.add_columns("alice/net");
  EXPECT_THAT(ClientOf("bob").CreateInstance(request), Unseen());
}

TEST_F(AccessTest, AnothersTapesAreNotReleased) {
  v1::ForwardHeader forward = TapedForwardOf(2);
  forward.set_instance("net");
  const auto done = ClientOf("alice").Forward(forward, Ones(8));
  ASSERT_THAT(done, IsOk());
  v1::ReleaseTapesRequest release;
  release.add_tape_ids(done->header.tape_id());
  EXPECT_EQ(ClientOf("bob").ReleaseTapes(release)->released_count(), 0);
  EXPECT_EQ(ClientOf("alice").ReleaseTapes(release)->released_count(), 1);
}

TEST_F(AccessTest, MethodsThatReadTakeWhatIsShared) {
  Share(true);
  for (const Request& request : RequestsOf("alice/net")) {
    if (request.message.empty()) continue;
    const absl::Status status = Ask("bob", request);
    if (IsIn(kChange, request.method)) {
      EXPECT_THAT(status, NotPermitted()) << request.method;
    } else {
      EXPECT_NE(status.code(), absl::StatusCode::kPermissionDenied)
          << request.method << ": " << status;
      EXPECT_NE(client::ReasonOf(status), v1::ERROR_REASON_INSTANCE_NOT_FOUND)
          << request.method;
    }
  }
  Share(false);
  v1::GetInstanceRequest request;
  request.set_instance("alice/net");
  EXPECT_THAT(ClientOf("bob").GetInstance(request), Unseen());
}

using Metadata = std::multimap<std::string, std::string>;

TEST_F(AccessTest, EachMethodOfEachRightThroughEachKindOfListener) {
  server_->SetUsers({{"alice", {.rights = Rights::kInfer}},
                     {"bob", {.rights = Rights::kTrain}},
                     {"carol", {.rights = Rights::kAdmin}}});
  const std::vector<std::pair<std::string, Metadata>> infer = {
      {"alice", {}}, {"front", {{kKey, "alice"}}}};
  const std::vector<std::pair<std::string, Metadata>> train = {
      {"bob", {}}, {"front", {{kKey, "bob"}}}};
  const std::vector<std::pair<std::string, Metadata>> admin = {
      {"local", {}}, {"accounts", {}}, {"front", {{kKey, "carol"}}}};
  for (const Request& request : RequestsOf("alice/net")) {
    if (request.method == "Calls")
      continue;  // It is open to all, its calls not.
    for (const auto& [socket, metadata] : infer) {
      const absl::Status status = Ask(socket, request, metadata);
      if (NeedsTrain(request.method)) {
        EXPECT_THAT(status, FailsWith(absl::StatusCode::kPermissionDenied,
                                      v1::ERROR_REASON_NOT_PERMITTED,
                                      HasSubstr("alice has the right to infer, "
                                                "and " +
                                                request.method + " needs")));
      } else {
        EXPECT_NE(status.code(), absl::StatusCode::kPermissionDenied)
            << request.method << ": " << status;
      }
    }
    for (const auto& [socket, metadata] : train) {
      const absl::Status status = Ask(socket, request, metadata);
      if (request.message.empty()) {
        EXPECT_NE(status.code(), absl::StatusCode::kPermissionDenied)
            << request.method << ": " << status;
      } else {
        EXPECT_THAT(status, Unseen()) << request.method;
      }
    }
    for (const auto& [socket, metadata] : admin) {
      const absl::Status status = Ask(socket, request, metadata);
      EXPECT_NE(status.code(), absl::StatusCode::kPermissionDenied)
          << request.method << ": " << status;
      EXPECT_NE(status.code(), absl::StatusCode::kUnauthenticated)
          << request.method << ": " << status;
      if (request.method == "DeleteInstance") server_->AddFake("net", "alice");
    }
    EXPECT_THAT(Ask("front", request, {}), Refused("names no caller"));
    EXPECT_THAT(Ask("front", request, {{kKey, "dave"}}),
                FailsWith(absl::StatusCode::kPermissionDenied,
                          v1::ERROR_REASON_NOT_PERMITTED,
                          HasSubstr("\"dave\" is no user of this server")));
  }
}

TEST_F(AccessTest, WhoMayInferMovesNoBuffersAndAccumulatesNothing) {
  server_->SetUsers({{"alice", {.rights = Rights::kInfer}}});
  v1::ForwardHeader forward = TapedForwardOf(2);
  forward.set_instance("net");
  const auto done = ClientOf("alice").Forward(forward, Ones(8));
  ASSERT_THAT(done, IsOk());
  v1::BackwardHeader backward = BackwardOf(done->header.tape_id(), 2);
  backward.set_instance("net");
  backward.set_accumulate(true);
  EXPECT_THAT(ClientOf("alice").Backward(backward, Ones(8)), MayOnlyInfer());
  forward = ForwardOf(2);
  forward.set_instance("net");
  forward.set_training(true);
  EXPECT_THAT(ClientOf("alice").Forward(forward, Ones(8)), MayOnlyInfer());
}

TEST_F(AccessTest, AFrontTellsOfATokenByNumbers) {
  server_->SetUsers({{"carol", {.token = 7}}});
  const std::string serial = "backboned-token-serial";
  const std::string expires = "backboned-token-expires";
  EXPECT_THAT(
      Principal("front",
                {{kKey, "carol"}, {serial, "7"}, {expires, "4000000000"}}),
      IsOkAndHolds(StrEq("carol")));
  EXPECT_THAT(Principal("front", {{kKey, "carol"}, {serial, "6"}}),
              Refused("token 6 of carol was replaced"));
  EXPECT_THAT(Principal("front", {{kKey, "carol"}, {expires, "1700000000"}}),
              Refused("the token of carol expired at 2023-11-14"));
  for (const std::string& key : {serial, expires}) {
    for (const char* number : {"", "0", "-7", "7.5", "seven", "1e20"}) {
      EXPECT_THAT(Principal("front", {{kKey, "carol"}, {key, number}}),
                  Refused("is not one number above 0"))
          << number;
    }
    EXPECT_THAT(Principal("front", {{kKey, "carol"}, {key, "7"}, {key, "7"}}),
                Refused("is not one number above 0"));
  }
}

TEST_F(AccessTest, ForwardsThatMoveBuffersChange) {
  Share(true);
  v1::ForwardHeader header = ForwardOf(2);
  header.set_instance("alice/net");
  EXPECT_THAT(ClientOf("bob").Forward(header, Ones(8)), IsOk());
  header.set_training(true);
  EXPECT_THAT(ClientOf("bob").Forward(header, Ones(8)), NotPermitted());
  EXPECT_THAT(ClientOf("alice").Forward(header, Ones(8)), IsOk());
}

TEST_F(AccessTest, BackwardsThatAccumulateChange) {
  Share(true);
  v1::ForwardHeader forward = TapedForwardOf(2);
  forward.set_instance("alice/net");
  const auto done = ClientOf("bob").Forward(forward, Ones(8));
  ASSERT_THAT(done, IsOk());
  v1::BackwardHeader header = BackwardOf(done->header.tape_id(), 2);
  header.set_instance("alice/net");
  EXPECT_THAT(ClientOf("alice").Backward(header, Ones(8)),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_TAPE_NOT_FOUND, HasSubstr("tape")));
  header.set_accumulate(true);
  EXPECT_THAT(ClientOf("bob").Backward(header, Ones(8)), NotPermitted());
  header.set_accumulate(false);
  header.set_return_grads(true);
  EXPECT_THAT(ClientOf("bob").Backward(header, Ones(8)), IsOk());
}

TEST_F(AccessTest, EverybodyReadsTheServersOwn) {
  v1::ForwardHeader header = ForwardOf(2);
  header.set_instance("common");
  EXPECT_THAT(ClientOf("bob").Forward(header, Ones(8)), IsOk());
  v1::SetParamsHeader write = SetParamsOf(kElements);
  write.set_instance("common");
  EXPECT_THAT(ClientOf("bob").SetParams(write, Zeros(kBytes)),
              FailsWith(absl::StatusCode::kPermissionDenied,
                        v1::ERROR_REASON_NOT_PERMITTED,
                        HasSubstr("belongs to server")));
  EXPECT_THAT(ClientOf("local").SetParams(write, Zeros(kBytes)), IsOk());
}

TEST_F(AccessTest, TheLocalPrincipalIsAnAdmin) {
  v1::SetParamsHeader write = SetParamsOf(kElements);
  write.set_instance("alice/net");
  EXPECT_THAT(ClientOf("local").SetParams(write, Zeros(kBytes)), IsOk());
  EXPECT_THAT(Listed("local"),
              ElementsAre("alice/net", "local/fake", "server/common"));
}

TEST_F(AccessTest, EqualNamesAreTwoInstances) {
  v1::CloneInstanceRequest clone;
  clone.set_instance("common");
  clone.set_name("mine");
  for (const char* socket : {"alice", "bob"}) {
    const auto made = ClientOf(socket).CloneInstance(clone);
    ASSERT_THAT(made, IsOk());
    EXPECT_EQ(made->instance().owner(), socket);
  }
  v1::SetParamsHeader write = SetParamsOf(kElements);
  write.set_instance("mine");
  ASSERT_THAT(ClientOf("bob").SetParams(write, Zeros(kBytes)), IsOk());
  v1::GetParamsRequest read;
  read.set_instance("mine");
  EXPECT_EQ(ClientOf("bob").GetParams(read)->bytes, Zeros(kBytes));
  EXPECT_NE(ClientOf("alice").GetParams(read)->bytes, Zeros(kBytes));
}

TEST_F(AccessTest, ListsOnlyWhatACallerMaySee) {
  EXPECT_THAT(Listed("alice"), ElementsAre("alice/net", "server/common"));
  EXPECT_THAT(Listed("bob"), ElementsAre("server/common"));
  Share(true);
  EXPECT_THAT(Listed("bob"), ElementsAre("alice/net", "server/common"));
}

TEST_F(AccessTest, ACloneOfWhatIsSharedIsNot) {
  Share(true);
  v1::CloneInstanceRequest clone;
  clone.set_instance("alice/net");
  clone.set_name("copy");
  const auto made = ClientOf("bob").CloneInstance(clone);
  ASSERT_THAT(made, IsOk());
  EXPECT_FALSE(made->instance().settings().shared());
  EXPECT_THAT(Listed("alice"), ElementsAre("alice/net", "server/common"));
}

TEST_F(AccessTest, OthersForwardsLeaveAFeatureCacheAlone) {
  v1::UpdateInstanceRequest update;
  update.set_instance("net");
  update.mutable_settings()->set_shared(true);
  update.mutable_settings()->set_feature_cache_bytes(1 << 20);
  update.mutable_update_mask()->add_paths("shared");
  update.mutable_update_mask()->add_paths("feature_cache_bytes");
  ASSERT_THAT(ClientOf("alice").UpdateInstance(update), IsOk());
  v1::ForwardHeader header = ForwardOf(2);
  header.set_instance("alice/net");
  const auto uses = [&](const char* socket) {
    return ClientOf(socket).Forward(header, Ones(8))->header.cache_use();
  };
  EXPECT_EQ(uses("alice"), v1::CACHE_USE_KEPT);
  EXPECT_EQ(uses("bob"), v1::CACHE_USE_UNSPECIFIED);
  EXPECT_EQ(uses("alice"), v1::CACHE_USE_HIT);
}

TEST_F(AccessTest, TheServersFeatureCacheKeepsAnswersForEachCaller) {
  v1::UpdateInstanceRequest update;
  update.set_instance("common");
  update.mutable_settings()->set_feature_cache_bytes(1 << 20);
  update.mutable_update_mask()->add_paths("feature_cache_bytes");
  ASSERT_THAT(ClientOf("local").UpdateInstance(update), IsOk());
  v1::ForwardHeader header = ForwardOf(2);
  header.set_instance("common");
  for (const char* socket : {"alice", "bob"}) {
    for (const v1::CacheUse use : {v1::CACHE_USE_KEPT, v1::CACHE_USE_HIT}) {
      EXPECT_EQ(ClientOf(socket).Forward(header, Ones(8))->header.cache_use(),
                use)
          << socket;
    }
  }
}

}  // namespace
}  // namespace backboned
