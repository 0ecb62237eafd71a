// Serves backboned.v1.InstanceService.

#ifndef BACKBONED_SERVER_RPC_INSTANCES_INSTANCE_SERVICE_H_
#define BACKBONED_SERVER_RPC_INSTANCES_INSTANCE_SERVICE_H_

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "backboned/v1/instance_service.pb.h"
#include "base/task.h"
#include "server/rpc/transport/decorated_service.h"

namespace backboned::rpc {

// The control side. The contract defines the methods; clone_methods.cc holds
// those that share and freeze, checkpoint_methods.cc those of checkpoints,
// usage_methods.cc what was used.
class InstanceService : public DecoratedService {
 public:
  explicit InstanceService(Surroundings& surroundings);

 private:
  Task<absl::StatusOr<v1::GetServerResponse>> GetServer(
      Call& call, const v1::GetServerRequest& request);
  Task<absl::StatusOr<v1::ListArchitecturesResponse>> ListArchitectures(
      Call& call, const v1::ListArchitecturesRequest& request);
  Task<absl::StatusOr<v1::ListBenchmarksResponse>> ListBenchmarks(
      Call& call, const v1::ListBenchmarksRequest& request);
  Task<absl::StatusOr<v1::CreateInstanceResponse>> CreateInstance(
      Call& call, const v1::CreateInstanceRequest& request);
  Task<absl::StatusOr<v1::CloneInstanceResponse>> CloneInstance(
      Call& call, const v1::CloneInstanceRequest& request);
  Task<absl::StatusOr<v1::UpdateInstanceResponse>> UpdateInstance(
      Call& call, const v1::UpdateInstanceRequest& request);
  Task<absl::StatusOr<v1::GetInstanceResponse>> GetInstance(
      Call& call, const v1::GetInstanceRequest& request);
  Task<absl::StatusOr<v1::ListInstancesResponse>> ListInstances(
      Call& call, const v1::ListInstancesRequest& request);
  Task<absl::StatusOr<v1::DeleteInstanceResponse>> DeleteInstance(
      Call& call, const v1::DeleteInstanceRequest& request);
  Task<absl::StatusOr<v1::SaveCheckpointResponse>> SaveCheckpoint(
      Call& call, const v1::SaveCheckpointRequest& request);
  Task<absl::StatusOr<v1::LoadCheckpointResponse>> LoadCheckpoint(
      Call& call, const v1::LoadCheckpointRequest& request);
  Task<absl::StatusOr<v1::ListCheckpointsResponse>> ListCheckpoints(
      Call& call, const v1::ListCheckpointsRequest& request);
  Task<absl::StatusOr<v1::DeleteCheckpointResponse>> DeleteCheckpoint(
      Call& call, const v1::DeleteCheckpointRequest& request);

  Task<absl::StatusOr<v1::ListUsageResponse>> ListUsage(
      Call& call, const v1::ListUsageRequest& request);

  v1::Usage UsageOf(LimitScope scope, const Payer& payer) const;

  // Describe instances without layout and digest.
  v1::Instance Describe(const std::shared_ptr<Instance>& instance) const;
  std::vector<v1::Instance> Describe(
      std::span<const std::shared_ptr<Instance>> instances) const;

  // Describes an instance with its layout, without digest.
  v1::Instance DescribeInFull(const std::shared_ptr<Instance>& instance) const;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_INSTANCES_INSTANCE_SERVICE_H_
