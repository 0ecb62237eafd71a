#include "server/rpc/standard/health_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "grpc/health/v1/health.pb.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_server.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::Optional;

using Response = ::grpc::health::v1::HealthCheckResponse;

std::string About(const std::string& service) {
  ::grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  return request.SerializeAsString();
}

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

TEST(HealthServiceTest, KnowsNoServiceByName) {
  TestServer server;
  RawCall check(server.channel(), "/grpc.health.v1.Health/Check");
  check.Send(About("backboned.v1.BackboneService"));
  EXPECT_THAT(check.End(), StatusIs(absl::StatusCode::kNotFound));
  RawCall watch(server.channel(), "/grpc.health.v1.Health/Watch");
  watch.Send(About("backboned.v1.BackboneService"));
  EXPECT_THAT(watch.Receive(), Optional(Telling(Response::SERVICE_UNKNOWN)));
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

}  // namespace
}  // namespace backboned
