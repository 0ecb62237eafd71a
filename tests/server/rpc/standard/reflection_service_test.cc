#include "server/rpc/standard/reflection_service.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "server/rpc/rpc_server.h"
#include "server/server.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_server.h"

namespace backboned {
namespace {

using ::grpc::reflection::v1alpha::ServerReflectionRequest;
using ::grpc::reflection::v1alpha::ServerReflectionResponse;
using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr char kMethod[] =
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

// Asks in one stream, and returns the answers.
std::vector<ServerReflectionResponse> Ask(
    const TestServer& server,
    const std::vector<ServerReflectionRequest>& requests) {
  RawCall call(server.channel(), kMethod);
  std::vector<ServerReflectionResponse> responses(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    call.Send(requests[i].SerializeAsString());
    EXPECT_TRUE(responses[i].ParseFromString(call.Receive().value_or("\xff")));
  }
  EXPECT_THAT(call.End(), IsOk());
  return responses;
}

ServerReflectionRequest FileOf(const std::string& symbol) {
  ServerReflectionRequest request;
  request.set_file_containing_symbol(symbol);
  return request;
}

ServerReflectionRequest FileNamed(const std::string& name) {
  ServerReflectionRequest request;
  request.set_file_by_filename(name);
  return request;
}

// Returns the names of the files in an answer.
std::vector<std::string> Files(const ServerReflectionResponse& response) {
  std::vector<std::string> names;
  for (const std::string& bytes :
       response.file_descriptor_response().file_descriptor_proto()) {
    google::protobuf::FileDescriptorProto file;
    EXPECT_TRUE(file.ParseFromString(bytes));
    names.push_back(file.name());
  }
  return names;
}

TEST(ReflectionServiceTest, ListsTheServices) {
  TestServer server;
  ServerReflectionRequest request;
  request.set_host("here");
  request.set_list_services("");
  const auto responses = Ask(server, {request});
  ASSERT_THAT(responses, SizeIs(1));
  EXPECT_EQ(responses[0].valid_host(), "here");
  EXPECT_EQ(responses[0].original_request().SerializeAsString(),
            request.SerializeAsString());
  std::vector<std::string> names;
  for (const auto& service : responses[0].list_services_response().service()) {
    names.push_back(service.name());
  }
  EXPECT_THAT(names,
              UnorderedElementsAre("backboned.v1.BackboneService",
                                   "backboned.v1.InstanceService",
                                   "grpc.health.v1.Health",
                                   "grpc.reflection.v1alpha.ServerReflection"));
  for (const std::string& name : names) {
    EXPECT_THAT(Files(Ask(server, {FileOf(name)})[0]), SizeIs(testing::Ge(1)));
  }
}

TEST(ReflectionServiceTest, GivesAFileWithThoseThatItImports) {
  TestServer server;
  const auto responses = Ask(server, {FileOf("backboned.v1.ForwardHeader"),
                                      FileNamed("backboned/v1/tensor.proto")});
  ASSERT_THAT(responses, SizeIs(2));
  const std::vector<std::string> files = Files(responses[0]);
  EXPECT_EQ(files.front(), "backboned/v1/backbone_service.proto");
  EXPECT_THAT(files, Contains("backboned/v1/tensor.proto").Times(1));
  EXPECT_THAT(files, Contains("google/protobuf/duration.proto"));
  EXPECT_THAT(Files(responses[1]), Contains("backboned/v1/tensor.proto"));
}

TEST(ReflectionServiceTest, SaysWhatItDoesNotKnow) {
  TestServer server;
  ServerReflectionRequest extension;
  extension.mutable_file_containing_extension()->set_containing_type("nobody");
  ServerReflectionRequest numbers;
  numbers.set_all_extension_numbers_of_type("nobody");
  for (const auto& response :
       Ask(server,
           {FileOf("nobody"), FileNamed("no.proto"), extension, numbers})) {
    EXPECT_EQ(response.error_response().error_code(), grpc::NOT_FOUND);
  }
  const auto responses = Ask(server, {ServerReflectionRequest()});
  ASSERT_THAT(responses, SizeIs(1));
  EXPECT_EQ(responses[0].error_response().error_code(), grpc::INVALID_ARGUMENT);
}

TEST(ReflectionServiceTest, KnowsTheExtensionsOfAMessage) {
  TestServer server;
  ServerReflectionRequest request;
  request.set_all_extension_numbers_of_type("backboned.v1.ForwardHeader");
  const auto responses = Ask(server, {request});
  ASSERT_THAT(responses, SizeIs(1));
  const auto& numbers = responses[0].all_extension_numbers_response();
  EXPECT_EQ(numbers.base_type_name(), "backboned.v1.ForwardHeader");
  EXPECT_THAT(numbers.extension_number(), IsEmpty());
}

TEST(ReflectionServiceTest, RefusesWhatItCannotDecode) {
  TestServer server;
  RawCall call(server.channel(), kMethod);
  call.Send("\xff");
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ReflectionServiceTest, IsThereOnlyIfItIsWanted) {
  Server server({c10::Device(c10::DeviceType::CPU)}, 1, ServerOptions());
  const auto rpc_server = rpc::RpcServer::Start(server, {.reflection = false});
  ASSERT_THAT(rpc_server, IsOk());
  RawCall call((*rpc_server)->InProcessChannel(), kMethod);
  call.Send("");
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kUnimplemented));
}

}  // namespace
}  // namespace backboned
