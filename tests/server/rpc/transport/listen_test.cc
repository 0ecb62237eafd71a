#include "server/rpc/transport/listen.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "server/rpc/rpc_server.h"
#include "server/server.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned::rpc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class ListenTest : public ::testing::Test {
 protected:
  ListenTest() {
    std::string pattern = ::testing::TempDir() + "backboned.XXXXXX";
    folder_ = mkdtemp(pattern.data());
  }
  ~ListenTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name = "s") const {
    return folder_ + "/" + name;
  }

  absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const std::string& address, bool insecure_remote = false) {
    return StartAll({address}, insecure_remote);
  }

  absl::StatusOr<std::unique_ptr<RpcServer>> StartAll(
      const std::vector<std::string>& addresses, bool insecure_remote = false) {
    absl::StatusOr<std::vector<Listener>> listeners = ParseListeners(addresses);
    if (!listeners.ok()) return listeners.status();
    return RpcServer::Start(server_, {.listeners = *std::move(listeners),
                                      .insecure_remote = insecure_remote});
  }

  // Expects that a client gets an answer at `address`.
  static void ExpectServes(const std::string& address) {
    PlainClient client(
        grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
    EXPECT_THAT(client.GetServer(), IsOk()) << address;
  }

  // Puts a socket at Path and returns its descriptor.
  int BindSocket(int type) const {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    Path().copy(address.sun_path, sizeof(address.sun_path) - 1);
    const int fd = socket(AF_UNIX, type, 0);
    EXPECT_EQ(
        bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)),
        0);
    return fd;
  }

  // Leaves a socket behind that no process serves, as a killed server does.
  void LeaveStaleSocket() const {
    close(BindSocket(SOCK_STREAM));
    std::ofstream(Path() + ".lock") << "";
    ASSERT_TRUE(std::filesystem::is_socket(Path()));
  }

  Server server_{
      {c10::Device(c10::DeviceType::CPU)}, /*threads=*/1, ServerOptions()};
  std::string folder_;
};

TEST_F(ListenTest, ServesOnAFreePort) {
  const auto rpc_server = Start("127.0.0.1:0");
  ASSERT_THAT(rpc_server, IsOk());
  ASSERT_EQ((*rpc_server)->addresses().size(), 1U);
  EXPECT_THAT((*rpc_server)->addresses()[0],
              AllOf(StartsWith("127.0.0.1:"), Not("127.0.0.1:0")));
  ExpectServes((*rpc_server)->addresses()[0]);
}

TEST_F(ListenTest, ServesOnAUnixSocketAndRemovesIt) {
  {
    const auto rpc_server = Start("unix:" + Path());
    ASSERT_THAT(rpc_server, IsOk());
    ExpectServes("unix:" + Path());
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(ListenTest, ServesOnSeveralAddresses) {
  const auto rpc_server = StartAll({"unix://" + Path(), "localhost:0"});
  ASSERT_THAT(rpc_server, IsOk());
  for (const std::string& address : (*rpc_server)->addresses()) {
    ExpectServes(address);
  }
}

TEST_F(ListenTest, RefusesASecondServerOnATcpPort) {
  const auto first = Start("127.0.0.1:0");
  ASSERT_THAT(first, IsOk());
  const std::string address = (*first)->addresses()[0];
  EXPECT_THAT(Start(address),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr(address),
                             HasSubstr("another server listens there"))));
  ExpectServes(address);
}

TEST_F(ListenTest, RefusesASecondServerOnAUnixPath) {
  const auto first = Start("unix:" + Path());
  ASSERT_THAT(first, IsOk());
  EXPECT_THAT(Start("unix:" + Path()),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr(Path()),
                             HasSubstr("another server listens there"))));
  ExpectServes("unix:" + Path());
}

TEST_F(ListenTest, RefusesTheSameAddressTwice) {
  EXPECT_THAT(StartAll({"unix:" + Path(), "unix:" + Path()}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(Path())));
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(ListenTest, TakesAStaleSocketOver) {
  LeaveStaleSocket();
  const auto rpc_server = Start("unix:" + Path());
  ASSERT_THAT(rpc_server, IsOk());
  ExpectServes("unix:" + Path());
}

TEST_F(ListenTest, LeavesASocketOfAnotherKindAlone) {
  const int in_use = BindSocket(SOCK_DGRAM);
  EXPECT_THAT(
      Start("unix:" + Path()),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("a socket exists there: Protocol wrong type")));
  EXPECT_TRUE(std::filesystem::is_socket(Path()));
  close(in_use);
}

TEST_F(ListenTest, LeavesAFileThatIsNoSocketAlone) {
  std::ofstream(Path()) << "precious";
  EXPECT_THAT(Start("unix:" + Path()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("a file that is not a socket")));
  std::string content;
  std::ifstream(Path()) >> content;
  EXPECT_EQ(content, "precious");
  EXPECT_FALSE(std::filesystem::exists(Path() + ".lock"));
}

TEST_F(ListenTest, DoesNotFollowALinkAtTheLocksPlace) {
  std::filesystem::create_symlink(Path("target"), Path() + ".lock");
  EXPECT_THAT(Start("unix:" + Path()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(Path())));
  EXPECT_FALSE(std::filesystem::exists(Path("target")));
}

// R16
TEST_F(ListenTest, RefusesAddressesBeyondLoopback) {
  for (const char* address : {"0.0.0.0:0", "[::]:0", "192.0.2.1:0"}) {
    EXPECT_THAT(Start(address), StatusIs(absl::StatusCode::kFailedPrecondition,
                                         AllOf(HasSubstr(address),
                                               HasSubstr("--insecure-remote"))))
        << address;
  }
  const auto rpc_server = Start("0.0.0.0:0", /*insecure_remote=*/true);
  ASSERT_THAT(rpc_server, IsOk());
  const std::string& address = (*rpc_server)->addresses()[0];
  ExpectServes("127.0.0.1" + address.substr(address.rfind(':')));
}

TEST_F(ListenTest, RefusesPathsThatNoSocketCanHave) {
  EXPECT_THAT(Start("unix:" + Path(std::string(108, 'x'))),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("at most 107"))));
  EXPECT_THAT(Start("unix:"), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("has no path")));
  EXPECT_THAT(
      Start("unix:" + Path("missing/s")),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("No such file")));
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(ListenTest, RefusesWhatIsNoAddress) {
  for (const char* address : {"", "localhost", ":50051", "localhost:http",
                              "localhost:65536", "localhost:-1"}) {
    EXPECT_THAT(Start(address),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("neither unix:/path nor host:port")))
        << address;
  }
  EXPECT_THAT(Start("host.invalid:0"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("cannot resolve \"host.invalid\"")));
}

TEST_F(ListenTest, ReadsAddresses) {
  const auto v6 = ParseListenAddress("[::1]:80");
  ASSERT_THAT(v6, IsOk());
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(v6->port, "80");
  EXPECT_FALSE(v6->is_unix());
  EXPECT_THAT(CheckLocal(*v6), IsOk());
  EXPECT_EQ(ParseListenAddress("unix:///run/b.sock")->path, "/run/b.sock");
}

TEST_F(ListenTest, TellsTheChosenPortOfAllAddressesOfAHost) {
  absl::StatusOr<ListenAddress> address = ParseListenAddress("localhost:0");
  ASSERT_THAT(address, IsOk());
  const absl::StatusOr<std::vector<Descriptor>> listeners = ListenOn(*address);
  ASSERT_THAT(listeners, IsOk());
  EXPECT_NE(address->port, "0");
  EXPECT_EQ(address->text, "localhost:" + address->port);
  for (const Descriptor& listener : *listeners) {
    sockaddr_in6 name = {};  // Its port is at the place of IPv4's.
    socklen_t size = sizeof(name);
    ASSERT_EQ(
        getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name), &size),
        0);
    EXPECT_EQ(std::to_string(ntohs(name.sin6_port)), address->port);
  }
}

TEST_F(ListenTest, RefusesAPortThatIsTaken) {
  absl::StatusOr<ListenAddress> first = ParseListenAddress("127.0.0.1:0");
  ASSERT_THAT(first, IsOk());
  const absl::StatusOr<std::vector<Descriptor>> listeners = ListenOn(*first);
  ASSERT_THAT(listeners, IsOk());
  absl::StatusOr<ListenAddress> second = ParseListenAddress(first->text);
  ASSERT_THAT(second, IsOk());
  EXPECT_THAT(ListenOn(*second), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("Address already in use")));
}

}  // namespace
}  // namespace backboned::rpc
