// Tests of a server that tells its callers apart.

#ifndef BACKBONED_TESTS_SERVER_RPC_CALLERS_TEST_H_
#define BACKBONED_TESTS_SERVER_RPC_CALLERS_TEST_H_

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "server/limits/limits.h"
#include "tests/testing/test_server.h"

namespace backboned {

// A server with the instances `net` of alice and `common` of the server. Its
// callers come by sockets: `local`, `alice`, `bob`, `front`, where they name a
// principal under kKey, and `accounts`, where they are the machine's accounts.
class CallersTest : public ::testing::Test {
 protected:
  explicit CallersTest(const Limits& limits = {.quotas = {}}) {
    server_ = std::make_unique<TestServer>(TestServerOptions{
        .listen = {"unix:" + folder_ + "/local",
                   "unix:" + folder_ + "/alice,principal=alice",
                   "unix:" + folder_ + "/bob,principal=bob",
                   "unix:" + folder_ + "/front,principal-from=" + kKey,
                   "unix:" + folder_ + "/accounts,principal-from=account"},
        .limits = limits});
    server_->AddFake("net", "alice");
    server_->AddFake("common", "server");
  }
  ~CallersTest() override {
    server_.reset();
    std::filesystem::remove_all(folder_);
  }

  std::shared_ptr<grpc::Channel> ChannelOf(const std::string& socket) const {
    return grpc::CreateChannel("unix:" + folder_ + "/" + socket,
                               grpc::InsecureChannelCredentials());
  }

  static constexpr char kKey[] = "backboned-principal";
  const std::string folder_ = [] {
    std::string pattern = ::testing::TempDir() + "callers.XXXXXX";
    return std::string(mkdtemp(pattern.data()));
  }();
  std::unique_ptr<TestServer> server_;
};

}  // namespace backboned

#endif  // BACKBONED_TESTS_SERVER_RPC_CALLERS_TEST_H_
