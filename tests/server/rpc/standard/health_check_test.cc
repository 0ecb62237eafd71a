#include "server/rpc/standard/health_check.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "server/rpc/rpc_server.h"
#include "server/server.h"
#include "tests/testing/status_matchers.h"

namespace backboned::rpc {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr absl::Duration kLong = absl::Seconds(30);

TEST(TargetOfTest, IsWhereAProgramOnTheMachineConnects) {
  EXPECT_THAT(TargetOf("127.0.0.1:50051"), IsOkAndHolds("127.0.0.1:50051"));
  EXPECT_THAT(TargetOf("0.0.0.0:50051"), IsOkAndHolds("127.0.0.1:50051"));
  EXPECT_THAT(TargetOf("[::]:50051"), IsOkAndHolds("[::1]:50051"));
  EXPECT_THAT(TargetOf("unix:///run/b.sock"), IsOkAndHolds("unix:/run/b.sock"));
}

TEST(TargetOfTest, RefusesAPortThatOnlyTheServerKnows) {
  EXPECT_THAT(
      TargetOf("127.0.0.1:0"),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("127.0.0.1:0"), HasSubstr("the server chose"))));
}

TEST(TargetOfTest, RefusesWhatIsNoAddress) {
  EXPECT_THAT(TargetOf("here"), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr("\"here\" is neither")));
}

TEST(HealthCheckTest, AServerThatServesIsHealthyUntilItEnds) {
  Server server({c10::Device(c10::DeviceType::CPU)}, 1, ServerOptions());
  auto rpc_server = RpcServer::Start(
      server, {.listeners = ParseListeners({"127.0.0.1:0"}).value()});
  ASSERT_THAT(rpc_server, IsOk());
  const std::string target = (*rpc_server)->addresses().front();
  EXPECT_THAT(CheckHealth(target, kLong), IsOk());
  rpc_server->reset();
  EXPECT_THAT(CheckHealth(target, kLong),
              StatusIs(absl::StatusCode::kUnavailable,
                       AllOf(HasSubstr(target), HasSubstr("not answer"))));
}

// Answers each call with fixed bytes.
class FixedAnswer : public grpc::CallbackGenericService {
 public:
  explicit FixedAnswer(const std::string& bytes) : slice_(bytes) {
    grpc::EnableDefaultHealthCheckService(false);  // Else it would answer.
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
  }
  ~FixedAnswer() override { server_->Shutdown(); }

  std::string target() const { return "127.0.0.1:" + std::to_string(port_); }

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext*) override {
    return new Reactor(slice_);
  }

 private:
  class Reactor : public grpc::ServerGenericBidiReactor {
   public:
    explicit Reactor(const grpc::Slice& slice) : answer_(&slice, 1) {
      StartWriteAndFinish(&answer_, grpc::WriteOptions(), grpc::Status::OK);
    }
    void OnDone() override { delete this; }

   private:
    grpc::ByteBuffer answer_;
  };

  grpc::Slice slice_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TEST(HealthCheckTest, OnlyServingIsHealthy) {
  for (const std::string bytes : {"", "\x08\x02", "\x08\x03", "\x08", "no"}) {
    const FixedAnswer server(bytes);
    EXPECT_THAT(CheckHealth(server.target(), kLong),
                StatusIs(absl::StatusCode::kUnavailable,
                         HasSubstr(server.target() + " does not serve")))
        << bytes.size();
  }
}

}  // namespace
}  // namespace backboned::rpc
