// Calls the services through the stubs that protoc generates: a client made
// from the .proto files alone.

#ifndef BACKBONED_TESTS_SERVER_RPC_PLAIN_CLIENT_H_
#define BACKBONED_TESTS_SERVER_RPC_PLAIN_CLIENT_H_

#include <gmock/gmock.h>
#include <grpcpp/channel.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "backboned/v1/backbone_service.pb.h"
#include "backboned/v1/error.pb.h"
#include "backboned/v1/instance_service.pb.h"
#include "client/cpp/error.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_server.h"

namespace backboned {

// All of the fake: scale (2), bn.weight (1), bn.bias (0), head (3), of four
// elements.
inline constexpr int64_t kElements = 16;
inline constexpr int64_t kBytes = kElements * 4;

// A streamed answer, whose chunks had no gap.
template <typename Header>
struct Streamed {
  Header header;
  std::string bytes;
};

// Makes calls without a deadline, with several chunks for the bytes, if any. A
// header without an instance means `fake`.
//
// Thread-safe.
class PlainClient {
 public:
  explicit PlainClient(const std::shared_ptr<grpc::Channel>& channel,
                       std::string session = "");
  explicit PlainClient(const TestServer& server, std::string session = "");
  PlainClient(PlainClient&& other) noexcept;
  PlainClient& operator=(PlainClient&& other) noexcept;
  ~PlainClient();

  absl::StatusOr<Streamed<v1::ForwardResult>> Forward(v1::ForwardHeader header,
                                                      std::string_view bytes);
  absl::StatusOr<Streamed<v1::BackwardResult>> Backward(
      v1::BackwardHeader header, std::string_view bytes);
  absl::StatusOr<v1::ReleaseTapesResponse> ReleaseTapes(
      const v1::ReleaseTapesRequest& request);
  absl::StatusOr<Streamed<v1::GetParamsResult>> GetParams(
      v1::GetParamsRequest request = {});
  absl::StatusOr<v1::SetParamsResponse> SetParams(v1::SetParamsHeader header,
                                                  std::string_view bytes);
  absl::StatusOr<Streamed<v1::GetGradsResult>> GetGrads(
      v1::GetGradsRequest request = {});
  absl::StatusOr<v1::SetGradsResponse> SetGrads(v1::SetGradsHeader header,
                                                std::string_view bytes);
  absl::StatusOr<v1::ZeroGradsResponse> ZeroGrads(
      v1::ZeroGradsRequest request = {});
  absl::StatusOr<Streamed<v1::GetBuffersResult>> GetBuffers(
      v1::GetBuffersRequest request = {});
  absl::StatusOr<v1::SetBuffersResponse> SetBuffers(v1::SetBuffersHeader header,
                                                    std::string_view bytes);
  absl::StatusOr<v1::ConfigureOptimizerResponse> ConfigureOptimizer(
      v1::ConfigureOptimizerRequest request);
  absl::StatusOr<v1::StepResponse> Step(v1::StepRequest request = {});
  absl::StatusOr<Streamed<v1::GetOptimizerStateResult>> GetOptimizerState(
      v1::GetOptimizerStateRequest request = {});
  absl::StatusOr<v1::SetOptimizerStateResponse> SetOptimizerState(
      v1::SetOptimizerStateHeader header, std::string_view bytes);
  absl::StatusOr<Streamed<v1::TrainStepResult>> TrainStep(
      v1::TrainStepHeader header, std::string_view bytes);
  absl::StatusOr<v1::ExtractResponse> Extract(v1::ExtractRequest request);

  absl::StatusOr<v1::GetServerResponse> GetServer();
  absl::StatusOr<v1::ListArchitecturesResponse> ListArchitectures(
      const v1::ListArchitecturesRequest& request = {});
  absl::StatusOr<v1::ListBenchmarksResponse> ListBenchmarks(
      const v1::ListBenchmarksRequest& request = {});
  absl::StatusOr<v1::CreateInstanceResponse> CreateInstance(
      const v1::CreateInstanceRequest& request);
  absl::StatusOr<v1::CloneInstanceResponse> CloneInstance(
      const v1::CloneInstanceRequest& request);
  absl::StatusOr<v1::UpdateInstanceResponse> UpdateInstance(
      const v1::UpdateInstanceRequest& request);
  absl::StatusOr<v1::GetInstanceResponse> GetInstance(
      v1::GetInstanceRequest request = {});
  absl::StatusOr<v1::ListInstancesResponse> ListInstances(
      const v1::ListInstancesRequest& request = {});
  absl::StatusOr<v1::DeleteInstanceResponse> DeleteInstance(
      v1::DeleteInstanceRequest request);
  absl::StatusOr<v1::ListUsageResponse> ListUsage(
      const v1::ListUsageRequest& request = {});

 private:
  struct Stubs;

  std::unique_ptr<Stubs> stubs_;
};

// Returns a spec of a float32 tensor.
v1::TensorSpec FloatSpec(const std::vector<int64_t>& shape,
                         const std::string& name = "");

// Returns the header of a forward of `rows` samples of `size` elements for
// `out`, and one of a forward whose tape is kept.
v1::ForwardHeader ForwardOf(int64_t rows, int64_t size = 4);
v1::ForwardHeader TapedForwardOf(int64_t rows, int64_t size = 4);

// Returns the header of a backward of `tape_id` from the gradient of `out`.
v1::BackwardHeader BackwardOf(const std::string& tape_id, int64_t rows,
                              int64_t size = 4);

// Returns the header of a SetParams of all parameters, `elements` in all.
v1::SetParamsHeader SetParamsOf(int64_t elements);

// Returns the version of the instance `fake`.
v1::Version VersionOf(const TestServer& server);

// Returns the values `first`, `first` + 1, ...
std::vector<float> Ascending(size_t count, float first = 1);

// Return the bytes of float32 ones, and zero bytes.
std::string Ones(int64_t elements);
std::string Zeros(int64_t bytes);

// Matches a failed call of this code, reason and message.
MATCHER_P3(FailsWith, code, reason, message, "") {
  const absl::Status status = [](const auto& result) -> absl::Status {
    if constexpr (requires { result.status(); }) {
      return result.status();
    } else {
      return result;
    }
  }(arg);
  *result_listener << "which is " << status << " because of "
                   << v1::ErrorReason_Name(client::ReasonOf(status));
  return status.code() == code && client::ReasonOf(status) == reason &&
         ::testing::Matches(message)(std::string(status.message()));
}

// Matches a call that was refused because of the limit `name` of `value`.
MATCHER_P2(RefusedBy, name, value, "") {
  const absl::Status status = [](const auto& result) -> absl::Status {
    if constexpr (requires { result.status(); }) {
      return result.status();
    } else {
      return result;
    }
  }(arg);
  const v1::ErrorDetail detail =
      client::DetailOf(status).value_or(v1::ErrorDetail());
  *result_listener << "which is " << status << " with "
                   << detail.ShortDebugString();
  return status.code() == absl::StatusCode::kResourceExhausted &&
         detail.reason() == v1::ERROR_REASON_LIMIT_REACHED &&
         detail.limit() == name && detail.limit_value() == value &&
         detail.requested_value() > value;
}

}  // namespace backboned

#endif  // BACKBONED_TESTS_SERVER_RPC_PLAIN_CLIENT_H_
