// Serves GetParams, SetParams, GetBuffers and SetBuffers.

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backbones/state.h"
#include "base/errors.h"
#include "server/rpc/backbone/backbone_service.h"
#include "server/rpc/backbone/transfer.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {
namespace {

absl::StatusOr<std::vector<Slice>> SelectWholeBuffers(
    const Selection& selection, const Layout& layout) {
  if (selection.range.has_value()) {
    return InvalidOption("a range does not apply to buffers");
  }
  return SelectBuffers(selection, layout);
}

}  // namespace

Task<absl::Status> BackboneService::GetParams(
    Call& call, MessageStream& stream, const v1::GetParamsRequest& request) {
  absl::StatusOr<Target> target =
      co_await Select(call, request.instance(), request.selection(),
                      SelectParameters, FromProto(request.if_version()));
  if (!target.ok()) co_return target.status();
  const auto& [instance, state, slices] = *target;
  absl::StatusOr<std::optional<c10::ScalarType>> dtype =
      OptionalFloat(request.dtype(), "dtype");
  if (!dtype.ok()) co_return dtype.status();
  v1::GetParamsResult result;
  *result.mutable_version() = VersionOf(*instance, *state);
  *result.mutable_spec() =
      FlatSpec(CountElements(slices), dtype->value_or(DtypeOf(*state)));
  co_return co_await Download(call, stream, *instance, result,
                              SliceTensors(state->params, slices), *dtype);
}

Task<absl::StatusOr<v1::SetParamsResponse>> BackboneService::SetParams(
    Call& call, MessageStream& stream, const v1::SetParamsHeader& header) {
  absl::StatusOr<Target> target = co_await Select(
      call, header.instance(), header.selection(), SelectParameters);
  if (!target.ok()) co_return target.status();
  absl::StatusOr<c10::ScalarType> dtype =
      CheckFlatSpec(header.spec(), CountElements(target->slices));
  if (!dtype.ok()) co_return dtype.status();
  absl::StatusOr<std::vector<at::Tensor>> values =
      co_await Upload(server(), call, stream, *target->instance,
                      target->state->params, target->slices, *dtype);
  if (!values.ok()) co_return values.status();
  co_return co_await Commit<v1::SetParamsResponse>(
      call, *target->instance, FromProto(header.if_version()),
      [&](const State& current) {
        return WithParams(current, target->slices, *values);
      });
}

Task<absl::Status> BackboneService::GetBuffers(
    Call& call, MessageStream& stream, const v1::GetBuffersRequest& request) {
  absl::StatusOr<Target> target =
      co_await Select(call, request.instance(), request.selection(),
                      SelectWholeBuffers, FromProto(request.if_version()));
  if (!target.ok()) co_return target.status();
  const auto& [instance, state, slices] = *target;
  v1::GetBuffersResult result;
  *result.mutable_version() = VersionOf(*instance, *state);
  std::vector<at::Tensor> tensors;
  for (const Slice& slice : slices) {
    tensors.push_back(state->buffers[slice.index]);
    *result.add_buffers() =
        Spec(instance->architecture().layout().buffers()[slice.index].name,
             tensors.back());
  }
  co_return co_await Download(call, stream, *instance, result,
                              std::move(tensors));
}

Task<absl::StatusOr<v1::SetBuffersResponse>> BackboneService::SetBuffers(
    Call& call, MessageStream& stream, const v1::SetBuffersHeader& header) {
  absl::StatusOr<Target> target = co_await Select(
      call, header.instance(), header.selection(), SelectWholeBuffers);
  if (!target.ok()) co_return target.status();
  absl::StatusOr<std::optional<c10::ScalarType>> dtype = CheckBufferSpecs(
      header.buffers(), target->slices,
      target->instance->architecture().layout(), *target->state);
  if (!dtype.ok()) co_return dtype.status();
  absl::StatusOr<std::vector<at::Tensor>> values =
      co_await Upload(server(), call, stream, *target->instance,
                      target->state->buffers, target->slices, *dtype);
  if (!values.ok()) co_return values.status();
  co_return co_await Commit<v1::SetBuffersResponse>(
      call, *target->instance, FromProto(header.if_version()),
      [&](const State& current) {
        return WithBuffers(current, target->slices, *values);
      });
}

}  // namespace backboned::rpc
