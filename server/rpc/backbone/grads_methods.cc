// Serves GetGrads, SetGrads and ZeroGrads.

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backbones/state.h"
#include "base/errors.h"
#include "server/rpc/backbone/backbone_service.h"
#include "server/rpc/backbone/transfer.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {
namespace {

absl::Status CheckAllPresent(const std::vector<at::Tensor>& grads,
                             const std::vector<Slice>& slices,
                             const Layout& layout) {
  for (size_t i = 0; i < grads.size(); ++i) {
    if (grads[i].defined()) continue;
    return Error(
        absl::StatusCode::kFailedPrecondition, Reason::kNoGradients,
        absl::StrCat("parameter ",
                     Quote(layout.parameters()[slices[i].index].name),
                     " has no gradient; run a backward with accumulate, or "
                     "set allow_absent"));
  }
  return absl::OkStatus();
}

// Splits `slices` into those whose gradients follow, of `dtype`, and those
// without gradients.
struct Presence {
  std::vector<Slice> present;
  std::vector<Slice> absent;
  c10::ScalarType dtype = c10::ScalarType::Float;
};

absl::StatusOr<Presence> SplitByPresence(const v1::FlatGrads& grads,
                                         std::vector<Slice> slices) {
  Presence split;
  if (grads.present().empty()) {
    split.present = std::move(slices);
  } else if (grads.present_size() != static_cast<int>(slices.size())) {
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
        absl::StrCat("present has ", grads.present_size(), " values, expected ",
                     slices.size(), ", one for each selected parameter"));
  } else {
    for (size_t i = 0; i < slices.size(); ++i) {
      (grads.present(static_cast<int>(i)) ? split.present : split.absent)
          .push_back(slices[i]);
    }
  }
  absl::StatusOr<c10::ScalarType> dtype =
      CheckFlatSpec(grads.spec(), CountElements(split.present));
  if (!dtype.ok()) return dtype.status();
  split.dtype = *dtype;
  return split;
}

}  // namespace

Task<absl::Status> BackboneService::GetGrads(
    Call& call, MessageStream& stream, const v1::GetGradsRequest& request) {
  absl::StatusOr<Target> target = co_await Select(
      call, request.instance(), request.selection(), SelectWholeParameters);
  if (!target.ok()) co_return target.status();
  const auto& [instance, state, slices] = *target;
  std::vector<at::Tensor> grads = SliceTensors(state->grads, slices);
  if (!request.allow_absent()) {
    absl::Status complete =
        CheckAllPresent(grads, slices, instance->architecture().layout());
    if (!complete.ok()) co_return complete;
  }
  absl::StatusOr<std::optional<c10::ScalarType>> dtype =
      OptionalFloat(request.dtype(), "dtype");
  if (!dtype.ok()) co_return dtype.status();
  v1::GetGradsResult result;
  *result.mutable_version() = VersionOf(*instance, *state);
  *result.mutable_grads() =
      FlatGradsOf(grads, dtype->value_or(DtypeOf(*state)));
  co_return co_await Download(call, stream, *instance, result, std::move(grads),
                              *dtype);
}

Task<absl::StatusOr<v1::SetGradsResponse>> BackboneService::SetGrads(
    Call& call, MessageStream& stream, const v1::SetGradsHeader& header) {
  absl::StatusOr<Target> target = co_await Select(
      call, header.instance(), header.selection(), SelectWholeParameters);
  if (!target.ok()) co_return target.status();
  absl::Status trains = target->instance->CheckTrains();
  if (!trains.ok()) co_return trains;
  absl::StatusOr<Presence> split =
      SplitByPresence(header.grads(), target->slices);
  if (!split.ok()) co_return split.status();
  absl::StatusOr<std::vector<at::Tensor>> values =
      co_await Upload(server(), call, stream, *target->instance,
                      target->state->params, split->present, split->dtype);
  if (!values.ok()) co_return values.status();
  std::vector<Slice> slices = split->present;
  slices.insert(slices.end(), split->absent.begin(), split->absent.end());
  values->resize(slices.size());  // Absent ones are undefined.
  co_return co_await Commit<v1::SetGradsResponse>(
      call, *target->instance, FromProto(header.if_version()),
      [&](const State& current) {
        return WithGrads(current, slices, *values);
      });
}

Task<absl::StatusOr<v1::ZeroGradsResponse>> BackboneService::ZeroGrads(
    Call& call, const v1::ZeroGradsRequest& request) {
  absl::StatusOr<Target> target = co_await Select(
      call, request.instance(), request.selection(), SelectWholeParameters);
  if (!target.ok()) co_return target.status();
  const std::vector<at::Tensor> none(target->slices.size());
  co_return co_await Commit<v1::ZeroGradsResponse>(
      call, *target->instance, VersionCondition(), [&](const State& current) {
        return WithGrads(current, target->slices, none);
      });
}

}  // namespace backboned::rpc
