#include "server/rpc/standard/health_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "grpc/health/v1/health.pb.h"
#include "tests/server/rpc/callers_test.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;
using ::testing::SizeIs;

using Response = ::grpc::health::v1::HealthCheckResponse;

std::string About(const std::string& service) {
  ::grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  return request.SerializeAsString();
}

// Asks once.
absl::StatusOr<Response::ServingStatus> Check(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  RawCall call(channel, "/grpc.health.v1.Health/Check");
  call.Send(About(service));
  absl::Status status = call.End();
  if (!status.ok()) return status;
  Response response;
  EXPECT_TRUE(response.ParseFromString(call.messages().at(0)));
  return response.status();
}

// Goes on asking.
class Watch {
 public:
  Watch(const std::shared_ptr<grpc::Channel>& channel,
        const std::string& service)
      : call_(channel, "/grpc.health.v1.Health/Watch") {
    call_.Send(About(service));
  }

  // Returns what is told next; nothing: the server has ended it.
  std::optional<Response::ServingStatus> Next() {
    const std::optional<std::string> message = call_.Receive();
    if (!message) return std::nullopt;
    Response response;
    EXPECT_TRUE(response.ParseFromString(*message));
    return response.status();
  }

  absl::Status End() { return call_.End(); }

 private:
  RawCall call_;
};

std::string Telling(Response::ServingStatus status) {
  Response response;
  response.set_status(status);
  return response.SerializeAsString();
}

TEST(HealthServiceTest, TellsThatTheServerServes) {
  TestServer server;
  RawCall call(server.channel(), "/grpc.health.v1.Health/Check");
  call.Send(About(""));
  EXPECT_THAT(call.End(), IsOk());
  EXPECT_THAT(call.messages(), ElementsAre(Telling(Response::SERVING)));
}

TEST(HealthServiceTest, TellsThatAnInstanceServesAndDoesNotUseIt) {
  TestServer server;
  for (const char* name : {"fake", "local/fake"}) {
    EXPECT_THAT(Check(server.channel(), name), IsOkAndHolds(Response::SERVING));
    Watch watch(server.channel(), name);
    EXPECT_THAT(watch.Next(), Optional(Response::SERVING));
  }
  EXPECT_EQ(server.forward_count(), 0);
}

TEST(HealthServiceTest, KnowsNoServiceThatIsNoInstance) {
  TestServer server;
  for (const char* name :
       {"backboned.v1.BackboneService", "other/fake", "local/", "/fake", "/"}) {
    EXPECT_THAT(
        Check(server.channel(), name),
        FailsWith(absl::StatusCode::kNotFound,
                  v1::ERROR_REASON_INSTANCE_NOT_FOUND, HasSubstr(name)));
    Watch watch(server.channel(), name);
    EXPECT_THAT(watch.Next(), Optional(Response::SERVICE_UNKNOWN));
  }
}

TEST(HealthServiceTest, AWatcherLearnsThatAnInstanceComesAndGoes) {
  TestServer server;
  Watch watch(server.channel(), "late");
  ASSERT_THAT(watch.Next(), Optional(Response::SERVICE_UNKNOWN));
  for (int i = 0; i < 3; ++i) {
    server.AddFake("other");  // Nothing is told of it.
    server.AddFake("late");
    EXPECT_THAT(watch.Next(), Optional(Response::SERVING));
    for (const char* name : {"late", "other"}) {
      v1::DeleteInstanceRequest request;
      request.set_instance(name);
      EXPECT_THAT(PlainClient(server).DeleteInstance(request), IsOk());
    }
    EXPECT_THAT(watch.Next(), Optional(Response::SERVICE_UNKNOWN));
  }
}

TEST(HealthServiceTest, ABareNameIsOnesOwnInstanceOrElseTheServers) {
  TestServer server;
  Watch watch(server.channel(), "net");
  ASSERT_THAT(watch.Next(), Optional(Response::SERVICE_UNKNOWN));
  server.AddFake("net", "alice");  // Another's.
  server.AddFake("net", "server");
  EXPECT_THAT(watch.Next(), Optional(Response::SERVING));
}

TEST(HealthServiceTest, KeepsNoLongNameForAWatcher) {
  TestServer server;
  Watch long_one(server.channel(), std::string(256, 'n'));
  EXPECT_THAT(long_one.Next(), Optional(Response::SERVICE_UNKNOWN));
  Watch longer(server.channel(), std::string(257, 'n'));
  EXPECT_THAT(longer.End(), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(HealthServiceTest, RefusesWhatItCannotDecode) {
  TestServer server;
  for (const char* method : {"Check", "Watch"}) {
    RawCall call(server.channel(),
                 std::string("/grpc.health.v1.Health/") + method);
    call.Send("\xff");
    EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kInvalidArgument));
  }
}

TEST(HealthServiceTest, AWatcherLearnsOfTheDrain) {
  TestServer server;
  RawCall call(server.channel(), "/grpc.health.v1.Health/Watch");
  call.Send(About(""));
  ASSERT_THAT(call.Receive(), Optional(Telling(Response::SERVING)));
  std::thread drain([&] { server.Drain(); });
  EXPECT_THAT(call.Receive(), Optional(Telling(Response::NOT_SERVING)));
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kUnavailable));
  drain.join();
}

TEST(HealthServiceTest, AWatcherOfAnInstanceLearnsOfTheDrain) {
  TestServer server;
  Watch known(server.channel(), "fake");
  Watch unknown(server.channel(), "nothing");
  ASSERT_THAT(known.Next(), Optional(Response::SERVING));
  ASSERT_THAT(unknown.Next(), Optional(Response::SERVICE_UNKNOWN));
  std::thread drain([&] { server.Drain(); });
  EXPECT_THAT(known.Next(), Optional(Response::NOT_SERVING));
  EXPECT_THAT(known.End(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(unknown.End(), StatusIs(absl::StatusCode::kUnavailable));
  drain.join();
}

TEST(HealthServiceTest, NothingServesDuringTheDrain) {
  TestServer server;
  absl::Notification begun;
  absl::Notification let_go;
  server.OnForward([&] {
    begun.Notify();
    let_go.WaitForNotification();
  });
  std::thread forward([&] {
    EXPECT_THAT(PlainClient(server).Forward(ForwardOf(1), Ones(4)), IsOk());
  });
  begun.WaitForNotification();
  std::thread drain([&] { server.Drain(); });
  for (const char* name : {"", "fake"}) {
    while (*Check(server.channel(), name) == Response::SERVING) {
    }
    EXPECT_THAT(Check(server.channel(), name),
                IsOkAndHolds(Response::NOT_SERVING));
  }
  EXPECT_THAT(Check(server.channel(), "nothing"),
              StatusIs(absl::StatusCode::kNotFound));
  Watch watch(server.channel(), "fake");
  EXPECT_THAT(watch.End(), StatusIs(absl::StatusCode::kUnavailable));
  let_go.Notify();
  forward.join();
  drain.join();
}

TEST(HealthServiceTest, WatchersHaveALimitOfTheirOwn) {
  TestServer server({.limits = {.max_streams = 1, .quotas = {}}});
  {
    Watch watch(server.channel(), "fake");
    ASSERT_THAT(watch.Next(), Optional(Response::SERVING));
    for (const char* name : {"", "fake", "nothing"}) {
      EXPECT_THAT(Watch(server.channel(), name).End(),
                  RefusedBy("max-streams", 1));
    }
    RawCall calls(server.channel(), "Calls");
    EXPECT_THAT(calls.End(), IsOk());
  }
  // The place of who has gone is free, soon.
  while (Watch(server.channel(), "fake").Next() != Response::SERVING) {
  }
}

TEST(HealthServiceTest, AWatcherMayGoAway) {
  TestServer server;
  {
    RawCall call(server.channel(), "/grpc.health.v1.Health/Watch");
    call.Send(About(""));
    ASSERT_THAT(call.Receive(), Optional(Telling(Response::SERVING)));
  }
  server.Settle();
  server.Drain();
}

class HealthOfOthersTest : public CallersTest {
 protected:
  HealthOfOthersTest() : CallersTest({.max_streams = 64, .quotas = {}}) {}

  void Share(bool shared) const {
    v1::UpdateInstanceRequest request;
    request.set_instance("net");
    request.mutable_settings()->set_shared(shared);
    request.mutable_update_mask()->add_paths("shared");
    EXPECT_THAT(PlainClient(ChannelOf("alice")).UpdateInstance(request),
                IsOk());
  }
};

TEST_F(HealthOfOthersTest, AnInstanceIsThereForThoseWhoMayReadIt) {
  EXPECT_THAT(Check(ChannelOf("alice"), "net"),
              IsOkAndHolds(Response::SERVING));
  EXPECT_THAT(Check(ChannelOf("local"), "alice/net"),
              IsOkAndHolds(Response::SERVING));
  for (const char* name : {"net", "alice/net", "alice/nothing"}) {
    EXPECT_THAT(Check(ChannelOf("bob"), name),
                FailsWith(absl::StatusCode::kNotFound,
                          v1::ERROR_REASON_INSTANCE_NOT_FOUND,
                          std::string("no instance \"") + name + "\""));
  }
}

TEST_F(HealthOfOthersTest, AWatcherLearnsThatItMayReadAnInstance) {
  Watch bobs(ChannelOf("bob"), "alice/net");
  Watch alices(ChannelOf("alice"), "net");
  ASSERT_THAT(bobs.Next(), Optional(Response::SERVICE_UNKNOWN));
  ASSERT_THAT(alices.Next(), Optional(Response::SERVING));
  Share(true);
  EXPECT_THAT(bobs.Next(), Optional(Response::SERVING));
  Share(false);
  EXPECT_THAT(bobs.Next(), Optional(Response::SERVICE_UNKNOWN));
  std::thread drain([&] { server_->Drain(); });
  EXPECT_THAT(alices.Next(), Optional(Response::NOT_SERVING));
  drain.join();
}

TEST_F(HealthOfOthersTest, OnlyUsersAskForAnInstanceAndAllForTheServer) {
  server_->SetUsers({{"alice", {}}});
  const auto refused = StatusIs(absl::StatusCode::kPermissionDenied,
                                HasSubstr("\"bob\" is no user"));
  EXPECT_THAT(Check(ChannelOf("alice"), "net"),
              IsOkAndHolds(Response::SERVING));
  EXPECT_THAT(Check(ChannelOf("bob"), "alice/net"), refused);
  EXPECT_THAT(Watch(ChannelOf("bob"), "alice/net").End(), refused);
  EXPECT_THAT(Check(ChannelOf("front"), "alice/net"),
              StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Watch(ChannelOf("front"), "alice/net").End(),
              StatusIs(absl::StatusCode::kUnauthenticated));
  for (const char* socket : {"alice", "bob", "front"}) {
    EXPECT_THAT(Check(ChannelOf(socket), ""), IsOkAndHolds(Response::SERVING));
    EXPECT_THAT(Watch(ChannelOf(socket), "").Next(),
                Optional(Response::SERVING));
  }
}

TEST_F(HealthOfOthersTest, StrangersTakeNoPlacesOfUsers) {
  server_->SetUsers({{"alice", {}}});
  std::vector<std::unique_ptr<Watch>> watches;
  do {
    watches.push_back(std::make_unique<Watch>(ChannelOf("bob"), ""));
  } while (watches.back()->Next() == Response::SERVING);
  EXPECT_THAT(watches, SizeIs(64 / 16 + 1));
  EXPECT_THAT(watches.back()->End(),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(Watch(ChannelOf("alice"), "").Next(),
              Optional(Response::SERVING));
}

TEST_F(HealthOfOthersTest, AWatcherHasTheRightsOfNow) {
  server_->SetUsers({{"alice", {}}, {"bob", {}}});
  Watch server(ChannelOf("bob"), "");
  Watch watch(ChannelOf("bob"), "alice/net");
  ASSERT_THAT(server.Next(), Optional(Response::SERVING));
  ASSERT_THAT(watch.Next(), Optional(Response::SERVICE_UNKNOWN));
  server_->SetUsers({{"bob", {.rights = Rights::kAdmin}}});
  EXPECT_THAT(watch.Next(), Optional(Response::SERVING));
  server_->SetUsers({{"bob", {.rights = Rights::kInfer}}});
  EXPECT_THAT(watch.Next(), Optional(Response::SERVICE_UNKNOWN));
  server_->SetUsers({});
  EXPECT_THAT(watch.End(), StatusIs(absl::StatusCode::kPermissionDenied));
  std::thread drain([&] { server_->Drain(); });
  EXPECT_THAT(server.Next(), Optional(Response::NOT_SERVING));
  drain.join();
}

}  // namespace
}  // namespace backboned
