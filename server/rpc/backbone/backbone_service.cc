#include "server/rpc/backbone/backbone_service.h"

#include <utility>
#include <vector>

#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {

BackboneService::BackboneService(Surroundings& surroundings)
    : DecoratedService("backboned.v1.BackboneService", surroundings) {
  AddExchange<v1::ForwardResult>("Forward", &BackboneService::Forward,
                                 Access::kRead);
  AddExchange<v1::BackwardResult>("Backward", &BackboneService::Backward,
                                  Access::kRead);
  AddExchange<v1::TrainStepResult>("TrainStep", &BackboneService::TrainStep,
                                   Access::kWrite);
  AddUnary("ReleaseTapes", &BackboneService::ReleaseTapes, Access::kAny);
  AddDownload("GetParams", &BackboneService::GetParams, Access::kRead);
  AddUpload("SetParams", &BackboneService::SetParams, Access::kWrite);
  AddDownload("GetGrads", &BackboneService::GetGrads, Access::kRead);
  AddUpload("SetGrads", &BackboneService::SetGrads, Access::kWrite);
  AddChange("ZeroGrads", &BackboneService::ZeroGrads, Access::kWrite);
  AddDownload("GetBuffers", &BackboneService::GetBuffers, Access::kRead);
  AddUpload("SetBuffers", &BackboneService::SetBuffers, Access::kWrite);
  AddChange("ConfigureOptimizer", &BackboneService::ConfigureOptimizer,
            Access::kWrite);
  AddChange("Step", &BackboneService::Step, Access::kWrite);
  AddDownload("GetOptimizerState", &BackboneService::GetOptimizerState,
              Access::kRead);
  AddUpload("SetOptimizerState", &BackboneService::SetOptimizerState,
            Access::kWrite);
  AddUnary("Extract", &BackboneService::Extract, Access::kRead);
  AddCalls("Calls");
}

Task<absl::StatusOr<BackboneService::Target>> BackboneService::Select(
    Call& call, const std::string& name, const v1::Selection& selection,
    Selector& select, VersionCondition condition) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      co_await Resolve(call, name);
  if (!instance.ok()) co_return instance.status();
  absl::StatusOr<std::vector<Slice>> slices =
      select(FromProto(selection), (*instance)->architecture().layout());
  if (!slices.ok()) co_return slices.status();
  StatePtr state = (*instance)->state();
  absl::Status expected = (*instance)->CheckVersion(condition, *state);
  if (!expected.ok()) co_return expected;
  co_return Target{.instance = *instance,
                   .state = std::move(state),
                   .slices = *std::move(slices)};
}

Task<absl::StatusOr<v1::ReleaseTapesResponse>> BackboneService::ReleaseTapes(
    Call& call, const v1::ReleaseTapesRequest& request) {
  const std::vector<std::string> ids(request.tape_ids().begin(),
                                     request.tape_ids().end());
  v1::ReleaseTapesResponse response;
  response.set_released_count(server().tapes().Release(ids, call.principal()));
  co_return response;
}

}  // namespace backboned::rpc
