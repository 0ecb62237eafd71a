#include "client/cpp/credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "client/cpp/client.h"
#include "tests/client/cpp/certificates.h"
#include "tests/client/cpp/fake_server.h"
#include "tests/testing/status_matchers.h"

namespace backboned::client {
namespace {

using ::absl::StatusCode;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr char kTcp[] = "host:50051";
constexpr char kUnix[] = "unix:/run/b.sock";

const Authority& Trusted() {
  static const auto* const authority = new Authority();
  return *authority;
}

// Tries once, for a while.
Options Trying(Credentials credentials) {
  return {.connect_timeout = absl::Seconds(5),
          .retry_timeout = absl::ZeroDuration(),
          .credentials = std::move(credentials)};
}

// Returns credentials with a certificate of the client's.
Credentials Showing(const Identity& identity) {
  return {.ca = Trusted().certificate(),
          .certificate = identity.certificate,
          .key = identity.key};
}

class CredentialsTest : public testing::Test {
 protected:
  // Writes a file's text; returns its path.
  static std::string Write(const std::string& text) {
    const std::string path =
        testing::TempDir() + "/credentials_test." + std::to_string(getpid());
    std::ofstream(path, std::ios::trunc) << text;
    return path;
  }

  // Keeps the tokens of all streams of calls.
  void NoteTokens(FakeServer& server) {
    server.backbones.hook = [this](grpc::ServerContext& context) {
      for (const auto& [key, value] : context.client_metadata()) {
        if (key == "authorization") {
          tokens_.emplace_back(value.data(), value.size());
        }
      }
      return grpc::Status::OK;
    };
  }

  std::vector<std::string> tokens_;
};

TEST_F(CredentialsTest, EachMistakeIsASentence) {
  const Identity own = Trusted().Issue();
  EXPECT_THAT(CheckCredentials({.certificate = own.certificate}),
              StatusIs(kInvalid, HasSubstr("a certificate without its key")));
  EXPECT_THAT(CheckCredentials({.key = own.key}),
              StatusIs(kInvalid, HasSubstr("a key without its certificate")));
  EXPECT_THAT(CheckCredentials({.ca = "no PEM"}),
              StatusIs(kInvalid, "the CA is no certificate in PEM"));
  EXPECT_THAT(CheckCredentials({.certificate = own.key, .key = own.key}),
              StatusIs(kInvalid, "the certificate is no certificate in PEM"));
  EXPECT_THAT(CheckCredentials(
                  {.certificate = own.certificate, .key = own.certificate}),
              StatusIs(kInvalid, HasSubstr("the key is no private key")));
  EXPECT_THAT(CheckCredentials({.certificate = own.certificate,
                                .key = Trusted().Issue().key}),
              StatusIs(kInvalid, "the key is not that of the certificate"));
  EXPECT_THAT(CheckCredentials(Showing(own)), IsOk());
  EXPECT_THAT(CheckCredentials({}), IsOk());
}

TEST_F(CredentialsTest, NoTokenGoesInClearThroughTcp) {
  FakeServer server;
  NoteTokens(server);
  const Credentials token = {.token = FixedToken("secret")};
  Options options = Trying(token);
  options.connect_timeout = absl::Milliseconds(500);
  EXPECT_THAT(Client::Connect(server.target(), options),
              StatusIs(StatusCode::kUnavailable));
  EXPECT_THAT(tokens_, IsEmpty());
  EXPECT_TRUE(UsesTls("ipv4:127.0.0.1:1", token));
  EXPECT_TRUE(UsesTls("dns:///unix:1", token));
  EXPECT_FALSE(UsesTls(kUnix, token));
  EXPECT_FALSE(UsesTls(kTcp, {}));
  EXPECT_TRUE(UsesTls(kUnix, {.ca = Trusted().certificate()}));
}

TEST_F(CredentialsTest, TheServersCertificateIsChecked) {
  FakeServer server(Trusted().Serve());
  EXPECT_THAT(
      Client::Connect(server.target(), Trying({.ca = Trusted().certificate()})),
      IsOk());
  Options options = Trying({.ca = Authority().certificate()});
  options.connect_timeout = absl::Milliseconds(500);
  EXPECT_THAT(Client::Connect(server.target(), options),
              StatusIs(StatusCode::kUnavailable,
                       HasSubstr("certificate verify failed")));
}

TEST_F(CredentialsTest, AnExpiredCertificateIsRefused) {
  FakeServer server(Trusted().Serve(/*asks=*/false, /*days=*/-1));
  Options options = Trying({.ca = Trusted().certificate()});
  options.connect_timeout = absl::Milliseconds(500);
  EXPECT_THAT(Client::Connect(server.target(), options),
              StatusIs(StatusCode::kUnavailable,
                       HasSubstr("certificate verify failed")));
}

TEST_F(CredentialsTest, TheClientsCertificateIsShown) {
  FakeServer server(Trusted().Serve(/*asks=*/true));
  const auto client =
      Client::Connect(server.target(), Trying(Showing(Trusted().Issue())));
  ASSERT_THAT(client, IsOk());
  EXPECT_THAT(client->GetServer(), IsOk());
  EXPECT_THAT(client->backbone("net").GetParams(), IsOk());
}

TEST_F(CredentialsTest, AClientWithoutTheRightCertificateIsRefused) {
  FakeServer server(Trusted().Serve(/*asks=*/true));
  for (const Credentials& wrong :
       {Credentials{.ca = Trusted().certificate()},
        Showing(Authority().Issue()), Showing(Trusted().Issue(/*days=*/-1))}) {
    Options options = Trying(wrong);
    options.connect_timeout = absl::Milliseconds(500);
    const auto client = Client::Connect(server.target(), options);
    // With TLS 1.3 the client hears of it behind its handshake.
    const absl::Status status =
        client.ok() ? client->GetServer().status() : client.status();
    EXPECT_THAT(status, StatusIs(StatusCode::kUnavailable));
  }
}

TEST_F(CredentialsTest, ATokenGoesWithEachCallAndEachStream) {
  FakeServer server(Trusted().Serve());
  NoteTokens(server);
  const auto client = Client::Connect(
      server.target(),
      Trying({.ca = Trusted().certificate(), .token = FixedToken("secret")}));
  ASSERT_THAT(client, IsOk());
  ASSERT_THAT(client->GetServer(), IsOk());
  EXPECT_THAT(server.instances.metadata,
              Contains(Pair("authorization", "Bearer secret")));
  ASSERT_THAT(client->backbone("net").GetParams(), IsOk());
  EXPECT_THAT(tokens_, ElementsAre("Bearer secret"));
}

TEST_F(CredentialsTest, AFileIsReadForEachCallAndEachStream) {
  FakeServer server(Trusted().Serve());
  NoteTokens(server);
  const std::string path = Write("first\n");
  const auto client = Client::Connect(
      server.target(),
      Trying({.ca = Trusted().certificate(), .token = TokenFile(path)}));
  ASSERT_THAT(client, IsOk());
  const Backbone net = client->backbone("net");
  ASSERT_THAT(net.GetParams(), IsOk());
  Write("second");
  ASSERT_THAT(client->GetServer(), IsOk());
  EXPECT_THAT(server.instances.metadata,
              Contains(Pair("authorization", "Bearer second")));
  bool breaks = true;
  server.backbones.breaks_now = [&] { return std::exchange(breaks, false); };
  EXPECT_THAT(net.GetParams(), StatusIs(StatusCode::kUnavailable));
  ASSERT_THAT(net.GetParams(), IsOk());
  EXPECT_THAT(tokens_,
              ElementsAre("Bearer first", "Bearer first", "Bearer second"));
}

TEST_F(CredentialsTest, WithoutAReadableTokenNothingIsSent) {
  FakeServer server(Trusted().Serve());
  NoteTokens(server);
  std::string given = "two words";
  const auto client = Client::Connect(
      server.target(),
      Trying({.ca = Trusted().certificate(), .token = [&] { return given; }}));
  ASSERT_THAT(client, IsOk());
  const Backbone net = client->backbone("net");
  for (const std::string& wrong :
       {std::string("two words"), std::string(), std::string("a\nb"),
        std::string(7169, 'x')}) {
    given = wrong;
    const auto refused = StatusIs(StatusCode::kUnauthenticated,
                                  HasSubstr("there is no token: a token is 1"));
    EXPECT_THAT(client->GetServer(), refused);
    EXPECT_THAT(net.GetParams(), refused);
  }
  EXPECT_THAT(server.instances.metadata, testing::IsEmpty());
  given = std::string(7168, 'x');
  EXPECT_THAT(net.GetParams(), IsOk());
  EXPECT_THAT(tokens_, ElementsAre("Bearer " + given));
}

TEST_F(CredentialsTest, FilesThatCannotBeReadAreNamed) {
  EXPECT_THAT(TokenFile("/nowhere/token")(),
              StatusIs(kInvalid,
                       "the token's file /nowhere/token cannot be "
                       "read: No such file or directory"));
  EXPECT_THAT(ReadText("the CA", testing::TempDir()),
              StatusIs(kInvalid, AllOf(HasSubstr("the CA"),
                                       HasSubstr("Is a directory"))));
  const std::string large = Write(std::string((1 << 20) + 1, 'x'));
  EXPECT_THAT(ReadText("the CA", large),
              StatusIs(kInvalid, HasSubstr("more than a MiB")));
  EXPECT_THAT(ReadText("it", Write("text")), IsOkAndHolds("text"));
}

}  // namespace
}  // namespace backboned::client
