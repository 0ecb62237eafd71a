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
    const v1::Selection& selection, const Layout& layout) {
  if (selection.has_range()) {
    return InvalidOption("a range does not apply to buffers");
  }
  return SelectBuffers(FromProto(selection), layout);
}

}  // namespace

absl::Status BackboneService::GetParams(Call& call, MessageStream& stream) {
  v1::GetParamsRequest request;
  absl::Status read = stream.ReadRequest(request);
  if (!read.ok()) return read;
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Resolve(call, request.instance());
  if (!instance.ok()) return instance.status();
  absl::StatusOr<std::vector<Slice>> slices = SelectParameters(
      FromProto(request.selection()), (*instance)->architecture().layout());
  if (!slices.ok()) return slices.status();
  const StatePtr state = (*instance)->state();
  absl::Status expected =
      (*instance)->CheckVersion(FromProto(request.if_version()), *state);
  if (!expected.ok()) return expected;
  absl::StatusOr<std::optional<c10::ScalarType>> dtype =
      OptionalFloat(request.dtype(), "dtype");
  if (!dtype.ok()) return dtype.status();
  v1::GetParamsResult result;
  *result.mutable_version() = VersionOf(**instance, *state);
  *result.mutable_spec() =
      FlatSpec(CountElements(*slices), dtype->value_or(DtypeOf(*state)));
  return Download(call, stream, **instance, result,
                  SliceTensors(state->params, *slices), *dtype);
}

absl::StatusOr<v1::SetParamsResponse> BackboneService::SetParams(
    Call& call, MessageStream& stream, const v1::SetParamsHeader& header) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Resolve(call, header.instance());
  if (!instance.ok()) return instance.status();
  absl::StatusOr<std::vector<Slice>> slices = SelectParameters(
      FromProto(header.selection()), (*instance)->architecture().layout());
  if (!slices.ok()) return slices.status();
  absl::StatusOr<c10::ScalarType> dtype =
      CheckFlatSpec(header.spec(), CountElements(*slices));
  if (!dtype.ok()) return dtype.status();
  absl::StatusOr<std::vector<at::Tensor>> values = Upload(
      server(), call, stream, (*instance)->state()->params, *slices, *dtype);
  if (!values.ok()) return values.status();
  absl::StatusOr<StatePtr> state = (*instance)->Commit(
      call.WorkerRequest((*instance)->lane()), FromProto(header.if_version()),
      [&](const State& current) {
        return WithParams(current, *slices, *values);
      });
  if (!state.ok()) return state.status();
  v1::SetParamsResponse response;
  *response.mutable_version() = VersionOf(**instance, **state);
  return response;
}

absl::Status BackboneService::GetBuffers(Call& call, MessageStream& stream) {
  v1::GetBuffersRequest request;
  absl::Status read = stream.ReadRequest(request);
  if (!read.ok()) return read;
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Resolve(call, request.instance());
  if (!instance.ok()) return instance.status();
  const Layout& layout = (*instance)->architecture().layout();
  absl::StatusOr<std::vector<Slice>> slices =
      SelectWholeBuffers(request.selection(), layout);
  if (!slices.ok()) return slices.status();
  const StatePtr state = (*instance)->state();
  absl::Status expected =
      (*instance)->CheckVersion(FromProto(request.if_version()), *state);
  if (!expected.ok()) return expected;
  v1::GetBuffersResult result;
  *result.mutable_version() = VersionOf(**instance, *state);
  std::vector<at::Tensor> tensors;
  for (const Slice& slice : *slices) {
    tensors.push_back(state->buffers[slice.index]);
    *result.add_buffers() =
        Spec(layout.buffers()[slice.index].name, tensors.back());
  }
  return Download(call, stream, **instance, result, std::move(tensors));
}

absl::StatusOr<v1::SetBuffersResponse> BackboneService::SetBuffers(
    Call& call, MessageStream& stream, const v1::SetBuffersHeader& header) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Resolve(call, header.instance());
  if (!instance.ok()) return instance.status();
  const Layout& layout = (*instance)->architecture().layout();
  absl::StatusOr<std::vector<Slice>> slices =
      SelectWholeBuffers(header.selection(), layout);
  if (!slices.ok()) return slices.status();
  absl::StatusOr<std::optional<c10::ScalarType>> dtype = CheckBufferSpecs(
      header.buffers(), *slices, layout, *(*instance)->state());
  if (!dtype.ok()) return dtype.status();
  absl::StatusOr<std::vector<at::Tensor>> values = Upload(
      server(), call, stream, (*instance)->state()->buffers, *slices, *dtype);
  if (!values.ok()) return values.status();
  absl::StatusOr<StatePtr> state = (*instance)->Commit(
      call.WorkerRequest((*instance)->lane()), FromProto(header.if_version()),
      [&](const State& current) {
        return WithBuffers(current, *slices, *values);
      });
  if (!state.ok()) return state.status();
  v1::SetBuffersResponse response;
  *response.mutable_version() = VersionOf(**instance, **state);
  return response;
}

}  // namespace backboned::rpc
