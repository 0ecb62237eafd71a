#include "client/cpp/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/client/cpp/fake_server.h"
#include "tests/testing/status_matchers.h"

namespace backboned::client {
namespace {

using ::absl::StatusCode;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::Pair;

TEST(ClientTest, SaysWhenNobodyServes) {
  const std::string target = [] { return FakeServer().target(); }();
  Options options;
  options.connect_timeout = absl::Milliseconds(50);
  EXPECT_THAT(Client::Connect(target, options),
              StatusIs(StatusCode::kUnavailable,
                       AllOf(HasSubstr(target), HasSubstr("50ms"))));
}

// gRPC would use the proxy for addresses of this machine, too.
TEST(ClientTest, ReachesTheServerWithoutTheEnvironmentsProxy) {
  FakeServer server;
  ASSERT_EQ(setenv("http_proxy", "http://127.0.0.1:9", /*overwrite=*/1), 0);
  const absl::StatusOr<Client> client = Client::Connect(server.target());
  ASSERT_EQ(unsetenv("http_proxy"), 0);
  ASSERT_THAT(client, IsOk());
  EXPECT_THAT(client->GetServer(), IsOk());
}

TEST(ClientTest, AsksTheInstanceService) {
  FakeServer server;
  const absl::StatusOr<Client> client = Client::Connect(server.target());
  ASSERT_THAT(client, IsOk());

  EXPECT_EQ(client->GetServer()->version(), "fake");
  v1::CreateInstanceRequest create;
  create.set_name("net");
  EXPECT_EQ(client->CreateInstance(create)->instance().name(), "net");
  v1::CloneInstanceRequest clone;
  clone.set_instance("net");
  EXPECT_EQ(client->CloneInstance(clone)->instance().name(), "net-clone");
  v1::GetInstanceRequest get;
  get.set_instance("net");
  EXPECT_EQ(client->GetInstance(get)->instance().name(), "net");
  EXPECT_EQ(client->ListInstances()->instances(0).name(), "net");
  v1::DeleteInstanceRequest remove;
  remove.set_instance("net");
  EXPECT_THAT(client->DeleteInstance(remove), IsOk());
}

TEST(ClientTest, GivesTheServersErrors) {
  FakeServer server;
  const Client client = Client::Connect(server.target()).value();
  EXPECT_THAT(client.GetInstance({}),
              StatusIs(StatusCode::kNotFound, "no such instance"));
  EXPECT_THAT(client.ListBenchmarks(), StatusIs(StatusCode::kUnimplemented));
}

TEST(ClientTest, SendsSessionAndLabel) {
  FakeServer server;
  Options options;
  options.session = "mine";
  options.label = "run-7";
  const Client client = Client::Connect(server.target(), options).value();
  ASSERT_THAT(client.GetServer(), IsOk());
  EXPECT_THAT(server.instances.metadata,
              AllOf(Contains(Pair("backboned-session", "mine")),
                    Contains(Pair("backboned-label", "run-7"))));
}

TEST(ClientTest, DrawsASessionOfItsOwn) {
  FakeServer server;
  const Client first = Client::Connect(server.target()).value();
  const Client second = Client::Connect(server.target()).value();
  EXPECT_THAT(first.options().session, MatchesRegex("[0-9a-f]{32}"));
  EXPECT_NE(first.options().session, second.options().session);
  ASSERT_THAT(first.GetServer(), IsOk());
  EXPECT_THAT(
      server.instances.metadata,
      AllOf(Contains(Pair("backboned-session", first.options().session)),
            Not(Contains(Key("backboned-label")))));
}

}  // namespace
}  // namespace backboned::client
