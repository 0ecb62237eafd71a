#include "server/rpc/backbone_service.h"

#include <utility>
#include <vector>

namespace backboned::rpc {

BackboneService::BackboneService(Surroundings& surroundings)
    : DecoratedService("backboned.v1.BackboneService", surroundings) {
  // Bind the methods of this class to their names.
  const auto add_stream =
      [this](std::string_view name,
             absl::Status (BackboneService::*method)(Call&, MessageStream&)) {
        AddMethod(name, [this, method](Call& call, MessageStream& stream) {
          return (this->*method)(call, stream);
        });
      };
  const auto add_unary =
      [this]<typename Request, typename Response>(
          std::string_view name,
          absl::StatusOr<Response> (BackboneService::*method)(Call&,
                                                              const Request&)) {
        AddUnary<Request, Response>(
            name, [this, method](Call& call, const Request& request) {
              return (this->*method)(call, request);
            });
      };
  add_stream("Forward", &BackboneService::Forward);
  add_stream("Backward", &BackboneService::Backward);
  add_stream("TrainStep", &BackboneService::TrainStep);
  add_unary("ReleaseTapes", &BackboneService::ReleaseTapes);
  add_stream("GetParams", &BackboneService::GetParams);
  add_stream("SetParams", &BackboneService::SetParams);
  add_stream("GetGrads", &BackboneService::GetGrads);
  add_stream("SetGrads", &BackboneService::SetGrads);
  add_unary("ZeroGrads", &BackboneService::ZeroGrads);
  add_stream("GetBuffers", &BackboneService::GetBuffers);
  add_stream("SetBuffers", &BackboneService::SetBuffers);
  add_unary("ConfigureOptimizer", &BackboneService::ConfigureOptimizer);
  add_unary("Step", &BackboneService::Step);
  add_stream("GetOptimizerState", &BackboneService::GetOptimizerState);
  add_stream("SetOptimizerState", &BackboneService::SetOptimizerState);
  add_unary("Extract", &BackboneService::Extract);
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
