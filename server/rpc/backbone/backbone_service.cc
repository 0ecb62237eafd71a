#include "server/rpc/backbone/backbone_service.h"

#include <utility>
#include <vector>

namespace backboned::rpc {

BackboneService::BackboneService(Surroundings& surroundings)
    : DecoratedService("backboned.v1.BackboneService", surroundings) {
  AddExchange<v1::ForwardResult>("Forward", &BackboneService::Forward);
  AddExchange<v1::BackwardResult>("Backward", &BackboneService::Backward);
  AddExchange<v1::TrainStepResult>("TrainStep", &BackboneService::TrainStep);
  AddUnary("ReleaseTapes", &BackboneService::ReleaseTapes);
  AddStream("GetParams", &BackboneService::GetParams);
  AddUpload("SetParams", &BackboneService::SetParams);
  AddStream("GetGrads", &BackboneService::GetGrads);
  AddUpload("SetGrads", &BackboneService::SetGrads);
  AddChange("ZeroGrads", &BackboneService::ZeroGrads);
  AddStream("GetBuffers", &BackboneService::GetBuffers);
  AddUpload("SetBuffers", &BackboneService::SetBuffers);
  AddChange("ConfigureOptimizer", &BackboneService::ConfigureOptimizer);
  AddChange("Step", &BackboneService::Step);
  AddStream("GetOptimizerState", &BackboneService::GetOptimizerState);
  AddUpload("SetOptimizerState", &BackboneService::SetOptimizerState);
  AddUnary("Extract", &BackboneService::Extract);
}

absl::StatusOr<std::shared_ptr<Instance>> BackboneService::Find(
    Call& call, const std::string& name) {
  call.record().instance = name;
  return server().registry().Find(name, call.principal());
}

absl::StatusOr<std::shared_ptr<Instance>> BackboneService::FindWritable(
    Call& call, const std::string& name) {
  absl::StatusOr<std::shared_ptr<Instance>> instance = Find(call, name);
  if (!instance.ok()) return instance;
  absl::Status writable = (*instance)->CheckWritable();
  if (!writable.ok()) return writable;
  return instance;
}

absl::StatusOr<v1::ReleaseTapesResponse> BackboneService::ReleaseTapes(
    Call& call, const v1::ReleaseTapesRequest& request) {
  const std::vector<std::string> ids(request.tape_ids().begin(),
                                     request.tape_ids().end());
  v1::ReleaseTapesResponse response;
  response.set_released_count(server().tapes().Release(ids, call.principal()));
  return response;
}

}  // namespace backboned::rpc
