// Serves backboned.v1.BackboneService.

#ifndef BACKBONED_SERVER_RPC_BACKBONE_BACKBONE_SERVICE_H_
#define BACKBONED_SERVER_RPC_BACKBONE_BACKBONE_SERVICE_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backboned/v1/backbone_service.pb.h"
#include "backbones/layout.h"
#include "backbones/selection.h"
#include "backbones/state.h"
#include "base/task.h"
#include "server/callers/answer_log.h"
#include "server/compute/forward_run.h"
#include "server/compute/train.h"
#include "server/instances/instance.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/transport/decorated_service.h"

namespace backboned::rpc {

// The data side. The contract defines the methods; each source *_methods.cc
// holds one family of them.
//
// A handler is a coroutine, which reads as straight-line code: it checks the
// header against the layout, reserves the bytes, receives them, lets the device
// work, and answers. Nothing changes before every byte has arrived.
class BackboneService : public DecoratedService {
 public:
  explicit BackboneService(Surroundings& surroundings);

 private:
  Task<absl::Status> Forward(Call& call, MessageStream& stream,
                             const v1::ForwardHeader& header,
                             AnswerTicket ticket);
  Task<absl::Status> Backward(Call& call, MessageStream& stream,
                              const v1::BackwardHeader& header,
                              AnswerTicket ticket);
  Task<absl::Status> TrainStep(Call& call, MessageStream& stream,
                               const v1::TrainStepHeader& header,
                               AnswerTicket ticket);
  Task<absl::Status> GetParams(Call& call, MessageStream& stream,
                               const v1::GetParamsRequest& request);
  Task<absl::StatusOr<v1::SetParamsResponse>> SetParams(
      Call& call, MessageStream& stream, const v1::SetParamsHeader& header);
  Task<absl::Status> GetGrads(Call& call, MessageStream& stream,
                              const v1::GetGradsRequest& request);
  Task<absl::StatusOr<v1::SetGradsResponse>> SetGrads(
      Call& call, MessageStream& stream, const v1::SetGradsHeader& header);
  Task<absl::Status> GetBuffers(Call& call, MessageStream& stream,
                                const v1::GetBuffersRequest& request);
  Task<absl::StatusOr<v1::SetBuffersResponse>> SetBuffers(
      Call& call, MessageStream& stream, const v1::SetBuffersHeader& header);
  Task<absl::Status> GetOptimizerState(
      Call& call, MessageStream& stream,
      const v1::GetOptimizerStateRequest& request);
  Task<absl::StatusOr<v1::SetOptimizerStateResponse>> SetOptimizerState(
      Call& call, MessageStream& stream,
      const v1::SetOptimizerStateHeader& header);
  Task<absl::StatusOr<v1::ReleaseTapesResponse>> ReleaseTapes(
      Call& call, const v1::ReleaseTapesRequest& request);
  Task<absl::StatusOr<v1::ZeroGradsResponse>> ZeroGrads(
      Call& call, const v1::ZeroGradsRequest& request);
  Task<absl::StatusOr<v1::ConfigureOptimizerResponse>> ConfigureOptimizer(
      Call& call, const v1::ConfigureOptimizerRequest& request);
  Task<absl::StatusOr<v1::StepResponse>> Step(Call& call,
                                              const v1::StepRequest& request);
  Task<absl::StatusOr<v1::ExtractResponse>> Extract(
      Call& call, const v1::ExtractRequest& request);

  // The tensors of an instance that a request selects.
  struct Target {
    std::shared_ptr<Instance> instance;
    StatePtr state;  // The present one, which meets the condition.
    std::vector<Slice> slices;
  };

  using Selector = absl::StatusOr<std::vector<Slice>>(const Selection&,
                                                      const Layout&);

  // Finds the instance `name`, whose version must meet `condition`, and selects
  // among its tensors.
  Task<absl::StatusOr<Target>> Select(Call& call, const std::string& name,
                                      const v1::Selection& selection,
                                      Selector& select,
                                      VersionCondition condition);
  Task<absl::StatusOr<Target>> Select(Call& call, const std::string& name,
                                      const v1::Selection& selection,
                                      Selector& select) {
    return Select(call, name, selection, select, VersionCondition());
  }

  // Commits the state that `make` makes of the present one, and answers the
  // version.
  template <typename Response>
  static Task<absl::StatusOr<Response>> Commit(
      const Call& call, Instance& instance, VersionCondition condition,
      const std::function<absl::StatusOr<StatePtr>(const State&)>& make) {
    absl::StatusOr<StatePtr> state = co_await instance.Commit(
        call.WorkerRequest(instance.lane()), std::move(condition), make);
    if (!state.ok()) co_return state.status();
    Response response;
    *response.mutable_version() = VersionOf(instance, **state);
    co_return response;
  }

  // Finds the instance of a forward's header and reads the options.
  Task<absl::StatusOr<ForwardWork>> Read(Call& call,
                                         const v1::ForwardHeader& header);

  // Checks the rest of a forward's header, reserves its bytes and its tape's
  // place, and allocates its inputs.
  Task<absl::StatusOr<ForwardWork>> Prepare(Call& call,
                                            const v1::ForwardHeader& header);

  // Does the same for a training step.
  Task<absl::StatusOr<TrainWork>> Prepare(Call& call,
                                          const v1::TrainStepHeader& header);

  // Answers a forward whose inputs are named by their digest.
  Task<absl::Status> AnswerFromCache(Call& call, MessageStream& stream,
                                     const v1::ForwardHeader& header,
                                     AnswerTicket ticket);
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_BACKBONE_BACKBONE_SERVICE_H_
