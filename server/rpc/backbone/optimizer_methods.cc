// Serves ConfigureOptimizer, Step, GetOptimizerState and SetOptimizerState.

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backbones/optimizer.h"
#include "backbones/optimizer_slots.h"
#include "base/errors.h"
#include "proto/wire/spec.h"
#include "server/compute/train.h"
#include "server/rpc/backbone/backbone_service.h"
#include "server/rpc/backbone/transfer.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/convert/optimizer_convert.h"
#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {
namespace {

// Returns kInvalidArgument (kShapeMismatch) unless `spec` is that of `model`.
absl::Status CheckSpec(const v1::TensorSpec& spec, const at::Tensor& model) {
  const v1::TensorSpec expected = Spec(spec.name(), model);
  if (spec.dtype() == expected.dtype() &&
      std::ranges::equal(spec.shape(), expected.shape())) {
    return absl::OkStatus();
  }
  return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
               absl::StrCat(Quote(spec.name()), " is ",
                            std::string(wire::DataTypeName(spec.dtype())), " ",
                            wire::ShapeString(spec), ", expected ",
                            std::string(wire::DataTypeName(expected.dtype())),
                            " ", wire::ShapeString(expected)));
}

// Returns a slice for the whole of each of `tensors`.
std::vector<Slice> WholeSlices(const std::vector<at::Tensor>& tensors) {
  std::vector<Slice> slices;
  for (const at::Tensor& tensor : tensors) {
    slices.push_back({.index = slices.size(), .end = tensor.numel()});
  }
  return slices;
}

}  // namespace

Task<absl::StatusOr<v1::ConfigureOptimizerResponse>>
BackboneService::ConfigureOptimizer(
    Call& call, const v1::ConfigureOptimizerRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      co_await Resolve(call, request.instance());
  if (!instance.ok()) co_return instance.status();
  absl::StatusOr<OptimizerPtr> optimizer =
      FromProto(request.optimizer(), (*instance)->architecture().layout());
  if (!optimizer.ok()) co_return optimizer.status();
  absl::Status possible = CheckOptimizable(*(*instance)->state());
  if (!possible.ok()) co_return possible;
  auto response = co_await Commit<v1::ConfigureOptimizerResponse>(
      call, **instance, FromProto(request.if_version()),
      [&](const State& current) { return WithOptimizer(current, *optimizer); });
  if (response.ok()) *response->mutable_optimizer() = ToProto(**optimizer);
  co_return response;
}

Task<absl::StatusOr<v1::StepResponse>> BackboneService::Step(
    Call& call, const v1::StepRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      co_await Resolve(call, request.instance());
  if (!instance.ok()) co_return instance.status();
  absl::StatusOr<StepDone> done = co_await RunStep(
      call.WorkerRequest(/*lane=*/0), **instance,
      FromProto(request.if_version()), FromProto(request.options()));
  if (!done.ok()) co_return done.status();
  call.record().times = done->times;
  v1::StepResponse response;
  *response.mutable_version() = VersionOf(**instance, *done->output.state);
  *response.mutable_result() = ToProto(done->output);
  co_return response;
}

Task<absl::Status> BackboneService::GetOptimizerState(
    Call& call, MessageStream& stream,
    const v1::GetOptimizerStateRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      co_await Resolve(call, request.instance());
  if (!instance.ok()) co_return instance.status();
  const StatePtr state = (*instance)->state();
  absl::Status expected =
      (*instance)->CheckVersion(FromProto(request.if_version()), *state);
  if (!expected.ok()) co_return expected;
  absl::Status there = CheckStep(*state, {});
  if (!there.ok()) co_return there;

  const OptimizerState& optimizer = *state->optimizer;
  const Layout& layout = (*instance)->architecture().layout();
  v1::GetOptimizerStateResult result;
  *result.mutable_version() = VersionOf(**instance, *state);
  *result.mutable_optimizer() = ToProto(optimizer);
  std::vector<at::Tensor> tensors;
  for (size_t p = 0; p < optimizer.slots.size(); ++p) {
    const std::vector<at::Tensor>& slots = optimizer.slots[p];
    const std::vector<std::string> names =
        SlotTensorNames(optimizer, layout, p);
    for (size_t i = 0; i < slots.size(); ++i) {
      *result.add_tensors() = Spec(names[i], slots[i]);
      tensors.push_back(slots[i]);
    }
  }
  co_return co_await Download(call, stream, **instance, result,
                              std::move(tensors));
}

Task<absl::StatusOr<v1::SetOptimizerStateResponse>>
BackboneService::SetOptimizerState(Call& call, MessageStream& stream,
                                   const v1::SetOptimizerStateHeader& header) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      co_await Resolve(call, header.instance());
  if (!instance.ok()) co_return instance.status();
  const Layout& layout = (*instance)->architecture().layout();
  absl::StatusOr<OptimizerPtr> optimizer =
      FromProto(header.optimizer(), layout);
  if (!optimizer.ok()) co_return optimizer.status();
  const StatePtr found = (*instance)->state();
  absl::Status valid = CheckOptimizable(*found);
  if (!valid.ok()) co_return valid;
  SlotPlan plan(**optimizer, layout, *found);
  for (const v1::TensorSpec& spec : header.tensors()) {
    absl::StatusOr<at::Tensor> model = plan.Add(spec.name());
    valid = model.ok() ? CheckSpec(spec, *model) : model.status();
    if (!valid.ok()) co_return valid;
  }
  valid = plan.CheckComplete();
  if (!valid.ok()) co_return valid;
  absl::StatusOr<std::vector<at::Tensor>> values =
      co_await Upload(server(), call, stream, **instance, plan.models(),
                      WholeSlices(plan.models()));
  if (!values.ok()) co_return values.status();
  co_return co_await Commit<v1::SetOptimizerStateResponse>(
      call, **instance, FromProto(header.if_version()),
      [&](const State& current) {
        return WithOptimizer(current, plan.Fill(**optimizer, *values));
      });
}

}  // namespace backboned::rpc
