// Tests the common behaviour of all methods of the contract.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

// A method's path, and whether its request is a stream of messages.
struct Method {
  std::string path;
  bool takes_stream = false;
};

// Returns all methods of the descriptor.
std::vector<Method> Methods() {
  std::vector<Method> methods;
  for (const auto* message :
       {v1::ForwardHeader::descriptor(), v1::GetServerRequest::descriptor()}) {
    const google::protobuf::ServiceDescriptor* service =
        message->file()->service(0);
    for (int i = 0; i < service->method_count(); ++i) {
      methods.push_back(
          {"/" + service->full_name() + "/" + service->method(i)->name(),
           service->method(i)->client_streaming()});
    }
  }
  return methods;
}

// Sends `messages` and returns how the call ended.
absl::Status Ask(const TestServer& server, const std::string& path,
                 const std::vector<std::string>& messages,
                 const RawCall::Options& options = {}) {
  RawCall call(server.channel(), path, options);
  for (const std::string& message : messages) call.Send(message);
  return call.End();
}

class ServicesTest : public ::testing::Test {
 protected:
  TestServer server_;
};

TEST_F(ServicesTest, ServesEveryMethodOfTheDescriptor) {
  EXPECT_THAT(Methods(), SizeIs(31));
  for (const Method& method : Methods()) {
    const absl::Status status = Ask(server_, method.path, {""});
    EXPECT_NE(status.code(), absl::StatusCode::kUnimplemented) << method.path;
    EXPECT_NE(status.code(), absl::StatusCode::kUnknown) << method.path;
    EXPECT_NE(status.code(), absl::StatusCode::kInternal) << method.path;
    if (!status.ok()) {
      EXPECT_NE(client::ReasonOf(status), v1::ERROR_REASON_UNSPECIFIED)
          << method.path << ": " << status;
    }
  }
}

// R12
TEST_F(ServicesTest, RefusesStreamsThatAreNoRequestOfAnyMethod) {
  const auto malformed = [](const auto& message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_MALFORMED_STREAM, message);
  };
  for (const Method& method : Methods()) {
    EXPECT_THAT(Ask(server_, method.path, {"\xff\xff\xff"}),
                malformed(HasSubstr("cannot decode")))
        << method.path;
    if (method.path.ends_with("/Calls")) continue;  // It may carry no call.
    EXPECT_THAT(Ask(server_, method.path, {}),
                malformed(HasSubstr(method.takes_stream ? "before its header"
                                                        : "has no message")))
        << method.path;
    if (method.takes_stream) continue;
    EXPECT_THAT(Ask(server_, method.path, {"", ""}),
                malformed(HasSubstr("more than one message")))
        << method.path;
  }
}

TEST_F(ServicesTest, ErrorsCarryMachineReadableDetails) {
  PlainClient client(server_);
  v1::GetParamsRequest request;
  request.set_instance("unknown");
  const auto missing = client.GetParams(request);
  EXPECT_THAT(missing, FailsWith(absl::StatusCode::kNotFound,
                                 v1::ERROR_REASON_INSTANCE_NOT_FOUND,
                                 HasSubstr("no instance \"unknown\"")));
  const auto detail = client::DetailOf(missing.status());
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->limit(), "");
  EXPECT_FALSE(detail->has_retry_delay());
}

TEST_F(ServicesTest, CutsLongMessagesSoThatTheyCanBeDecoded) {
  std::string name;
  while (name.size() < 4000) name += "\xc3\xa4";
  v1::BackwardHeader header = BackwardOf(name, 1);
  const absl::Status status =
      PlainClient(server_).Backward(header, std::string(16, '\0')).status();
  EXPECT_THAT(status,
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_TAPE_NOT_FOUND, HasSubstr("tape")));
  EXPECT_LE(status.message().size(), 1024U);
}

TEST_F(ServicesTest, RefusesMetadataThatIsNoToken) {
  const std::string path = "/backboned.v1.InstanceService/GetServer";
  for (const char* key : {"backboned-session", "backboned-label"}) {
    for (const std::string& value :
         {std::string("a b"), std::string(65, 'x'), std::string("a/b")}) {
      EXPECT_THAT(Ask(server_, path, {""}, {.metadata = {{key, value}}}),
                  FailsWith(absl::StatusCode::kInvalidArgument,
                            v1::ERROR_REASON_INVALID_OPTION, HasSubstr(key)));
    }
    EXPECT_THAT(Ask(server_, path, {""}, {.metadata = {{key, "run-1.a_b"}}}),
                IsOk());
  }
}

}  // namespace
}  // namespace backboned
