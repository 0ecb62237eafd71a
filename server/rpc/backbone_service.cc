#include "server/rpc/backbone_service.h"

#include <utility>
#include <vector>

namespace backboned::rpc {

BackboneService::BackboneService(Surroundings& surroundings)
    : DecoratedService("backboned.v1.BackboneService", surroundings) {
  // Bind the methods of this class to their names.
  const auto bound = [this](auto method) {
    return [this, method](auto&&... arguments) {
      return (this->*method)(std::forward<decltype(arguments)>(arguments)...);
    };
  };
  AddExchange<v1::ForwardHeader, v1::ForwardResult>(
      "Forward", bound(&BackboneService::Forward));
  AddExchange<v1::BackwardHeader, v1::BackwardResult>(
      "Backward", bound(&BackboneService::Backward));
  AddExchange<v1::TrainStepHeader, v1::TrainStepResult>(
      "TrainStep", bound(&BackboneService::TrainStep));
  AddUnary<v1::ReleaseTapesRequest, v1::ReleaseTapesResponse>(
      "ReleaseTapes", bound(&BackboneService::ReleaseTapes));
  AddMethod("GetParams", bound(&BackboneService::GetParams));
  AddUpload<v1::SetParamsHeader, v1::SetParamsResponse>(
      "SetParams", bound(&BackboneService::SetParams));
  AddMethod("GetGrads", bound(&BackboneService::GetGrads));
  AddUpload<v1::SetGradsHeader, v1::SetGradsResponse>(
      "SetGrads", bound(&BackboneService::SetGrads));
  AddChange<v1::ZeroGradsRequest, v1::ZeroGradsResponse>(
      "ZeroGrads", bound(&BackboneService::ZeroGrads));
  AddMethod("GetBuffers", bound(&BackboneService::GetBuffers));
  AddUpload<v1::SetBuffersHeader, v1::SetBuffersResponse>(
      "SetBuffers", bound(&BackboneService::SetBuffers));
  AddChange<v1::ConfigureOptimizerRequest, v1::ConfigureOptimizerResponse>(
      "ConfigureOptimizer", bound(&BackboneService::ConfigureOptimizer));
  AddChange<v1::StepRequest, v1::StepResponse>("Step",
                                               bound(&BackboneService::Step));
  AddMethod("GetOptimizerState", bound(&BackboneService::GetOptimizerState));
  AddUpload<v1::SetOptimizerStateHeader, v1::SetOptimizerStateResponse>(
      "SetOptimizerState", bound(&BackboneService::SetOptimizerState));
  AddUnary<v1::ExtractRequest, v1::ExtractResponse>(
      "Extract", bound(&BackboneService::Extract));
}

absl::StatusOr<std::shared_ptr<Instance>> BackboneService::Find(
    Call& call, const std::string& name) {
  call.record().instance = name;
  return host().registry().Find(name, call.principal());
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
  response.set_released_count(host().tapes().Release(ids, call.principal()));
  return response;
}

}  // namespace backboned::rpc
