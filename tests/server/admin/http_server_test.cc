#include "server/admin/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/descriptor.h"
#include "server/rpc/transport/listen.h"

namespace backboned::admin {
namespace {

using ::testing::EndsWith;
using ::testing::StartsWith;

// A server with pages of each kind, on a port of loopback.
class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    listeners_ = *rpc::ListenOn(address_);
    socklen_t size = sizeof(name_);
    getsockname(listeners_.front().get(), reinterpret_cast<sockaddr*>(&name_),
                &size);
    server_ = std::make_unique<HttpServer>(
        std::move(listeners_), /*any_host=*/true,
        Pages{{"/short", [] { return Page{.body = "short\n"}; }},
              {"/long", [] { return Page{.body = std::string(kLong, 'x')}; }},
              {"/broken",
               []() -> Page { throw std::runtime_error("no such thing"); }}});
  }

  Descriptor Connect() const {
    Descriptor client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(client.get(), reinterpret_cast<const sockaddr*>(&name_),
                      sizeof(sockaddr)),
              0);
    return client;
  }

  static void Send(const Descriptor& client, std::string_view text) {
    EXPECT_EQ(send(client.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }

  // Returns all that comes until the end.
  static std::string Rest(const Descriptor& client) {
    std::string rest;
    char part[4096];
    while (true) {
      const ssize_t size = recv(client.get(), part, sizeof(part), 0);
      if (size <= 0) return rest;
      rest.append(part, static_cast<size_t>(size));
    }
  }

  std::string Ask(std::string_view request) const {
    const Descriptor client = Connect();
    Send(client, request);
    return Rest(client);
  }

  static constexpr size_t kLong = 8 << 20;  // More than a socket takes at once.
  rpc::ListenAddress address_ = *rpc::ParseListenAddress("127.0.0.1:0");
  std::vector<Descriptor> listeners_;
  sockaddr_storage name_ = {};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersAndEndsTheConnection) {
  const std::string answer = Ask("GET /short?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nshort\n"));
}

TEST_F(HttpServerTest, SendsAllOfALongPage) {
  EXPECT_GT(Ask("GET /long HTTP/1.1\r\n\r\n").size(), kLong);
}

TEST_F(HttpServerTest, GoesOnAfterAPageThatFails) {
  EXPECT_THAT(Ask("GET /broken HTTP/1.1\r\n\r\n"),
              StartsWith("HTTP/1.1 500 Internal Server Error\r\n"));
  EXPECT_THAT(Ask("GET /short HTTP/1.1\r\n\r\n"), EndsWith("short\n"));
}

TEST_F(HttpServerTest, EndsWhileClientsAreAtEachPoint) {
  const Descriptor silent = Connect();
  const Descriptor half = Connect();
  Send(half, "GET /short HTT");
  const Descriptor taking = Connect();
  Send(taking, "GET /long HTTP/1.1\r\n\r\n");
  char first;
  EXPECT_EQ(recv(taking.get(), &first, 1, 0), 1);  // It is being answered.
  server_.reset();
  EXPECT_EQ(Rest(silent), "");
  EXPECT_EQ(Rest(half), "");
  EXPECT_LT(Rest(taking).size(), kLong);
}

TEST_F(HttpServerTest, TheOldestOfTooManyGivesWay) {
  std::vector<Descriptor> clients;
  for (size_t i = 0; i < HttpServer::kMostConnections + 1; ++i) {
    clients.push_back(Connect());
  }
  EXPECT_EQ(Rest(clients.front()), "");
  Send(clients[1], "GET /short HTTP/1.1\r\n\r\n");
  EXPECT_THAT(Rest(clients[1]), EndsWith("short\n"));
}

}  // namespace
}  // namespace backboned::admin
