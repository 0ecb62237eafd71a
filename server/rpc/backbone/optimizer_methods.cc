// Serves ConfigureOptimizer, Step, GetOptimizerState and SetOptimizerState.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backbones/optimizer.h"
#include "base/errors.h"
#include "proto/wire/spec.h"
#include "server/compute/train.h"
#include "server/device/host_view.h"
#include "server/rpc/backbone/backbone_service.h"
#include "server/rpc/backbone/transfer.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/convert/optimizer_convert.h"
#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {
namespace {

// Names the tensor of slot `what` of a parameter.
std::string SlotTensorName(const Parameter& parameter, std::string_view what) {
  return absl::StrCat(parameter.name, "/", std::string(what));
}

// The place of a tensor in an optimizer's state.
struct SlotPlace {
  size_t parameter = 0;
  size_t slot = 0;
};

// Allocates the tensors of a SetOptimizerState, if their specs are valid.
class SlotPlan {
 public:
  SlotPlan(const OptimizerState& optimizer, const Layout& layout,
           const State& state)
      : optimizer_(optimizer), layout_(layout), state_(state) {}

  // Adds a tensor's spec, in the order of the stream.
  absl::Status Add(const v1::TensorSpec& spec);

  // Returns kInvalidArgument unless each parameter has all of its tensors, or
  // none.
  absl::Status CheckComplete() const;

  const std::vector<SlotPlace>& places() const { return places_; }

  // A tensor of the right shape and dtype for each place.
  const std::vector<at::Tensor>& models() const { return models_; }

 private:
  // Returns a parameter's slots; none if it is never stepped.
  std::vector<std::string_view> NamesOf(size_t parameter) const {
    const std::optional<size_t> group = optimizer_.group_of[parameter];
    if (!group.has_value()) return {};
    return SlotNames(optimizer_.kind, optimizer_.groups[*group]);
  }

  std::optional<SlotPlace> Find(std::string_view name) const;

  const OptimizerState& optimizer_;
  const Layout& layout_;
  const State& state_;
  const at::Tensor scalar_ = at::empty({}, at::kFloat);
  std::vector<SlotPlace> places_;
  std::vector<at::Tensor> models_;
};

std::optional<SlotPlace> SlotPlan::Find(std::string_view name) const {
  for (size_t p = 0; p < layout_.parameters().size(); ++p) {
    const std::string& owner = layout_.parameters()[p].name;
    if (!name.starts_with(owner) || name.size() <= owner.size() ||
        name[owner.size()] != '/') {
      continue;
    }
    const std::vector<std::string_view> names = NamesOf(p);
    const auto slot = std::ranges::find(names, name.substr(owner.size() + 1));
    if (slot == names.end()) return std::nullopt;
    return SlotPlace{.parameter = p,
                     .slot = static_cast<size_t>(slot - names.begin())};
  }
  return std::nullopt;
}

absl::Status SlotPlan::Add(const v1::TensorSpec& spec) {
  const std::optional<SlotPlace> place = Find(spec.name());
  if (!place.has_value()) {
    return InvalidOption(
        absl::StrCat("the optimizer's state has no tensor ", Quote(spec.name()),
                     "; see GetOptimizerState for its tensors"));
  }
  for (const SlotPlace& other : places_) {
    if (other.parameter == place->parameter && other.slot == place->slot) {
      return InvalidOption(
          absl::StrCat("the header has two tensors ", Quote(spec.name())));
    }
  }
  const bool is_step = NamesOf(place->parameter)[place->slot] == kStepSlot;
  const at::Tensor& model = is_step ? scalar_ : state_.params[place->parameter];
  const v1::TensorSpec expected = Spec("", model);
  if (spec.dtype() != expected.dtype() ||
      !std::ranges::equal(spec.shape(), expected.shape())) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
                 absl::StrCat(Quote(spec.name()), " is ",
                              std::string(wire::DataTypeName(spec.dtype())),
                              " ", wire::ShapeString(spec), ", expected ",
                              std::string(wire::DataTypeName(expected.dtype())),
                              " ", wire::ShapeString(expected)));
  }
  places_.push_back(*place);
  models_.push_back(model);
  return absl::OkStatus();
}

absl::Status SlotPlan::CheckComplete() const {
  std::vector<std::vector<bool>> given(layout_.parameters().size());
  for (const SlotPlace& place : places_) {
    given[place.parameter].resize(NamesOf(place.parameter).size());
    given[place.parameter][place.slot] = true;
  }
  for (size_t p = 0; p < given.size(); ++p) {
    const auto missing = std::ranges::find(given[p], false);
    if (missing == given[p].end()) continue;
    const auto slot = static_cast<size_t>(missing - given[p].begin());
    return InvalidOption(absl::StrCat(
        "the header has no tensor ",
        Quote(SlotTensorName(layout_.parameters()[p], NamesOf(p)[slot]))));
  }
  return absl::OkStatus();
}

// Returns a slice for the whole of each of `tensors`.
std::vector<Slice> WholeSlices(const std::vector<at::Tensor>& tensors) {
  std::vector<Slice> slices;
  for (const at::Tensor& tensor : tensors) {
    slices.push_back({.index = slices.size(), .end = tensor.numel()});
  }
  return slices;
}

// Returns `optimizer` with `values` in their places. For the worker.
OptimizerPtr WithSlots(OptimizerState optimizer,
                       const std::vector<SlotPlace>& places,
                       const std::vector<at::Tensor>& values,
                       const State& state) {
  for (size_t i = 0; i < places.size(); ++i) {
    const SlotPlace& place = places[i];
    const ParameterGroup& group =
        optimizer.groups[optimizer.group_of[place.parameter].value()];
    const std::vector<std::string_view> names =
        SlotNames(optimizer.kind, group);
    std::vector<at::Tensor>& slots = optimizer.slots[place.parameter];
    slots.resize(names.size());
    slots[place.slot] =
        names[place.slot] == kStepSlot
            ? values[i]
            : OnDevice(values[i], state.params[place.parameter].device());
  }
  return std::make_shared<const OptimizerState>(std::move(optimizer));
}

}  // namespace

absl::StatusOr<v1::ConfigureOptimizerResponse>
BackboneService::ConfigureOptimizer(
    Call& call, const v1::ConfigureOptimizerRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Resolve(call, request.instance());
  if (!instance.ok()) return instance.status();
  absl::StatusOr<OptimizerPtr> optimizer =
      FromProto(request.optimizer(), (*instance)->architecture().layout());
  if (!optimizer.ok()) return optimizer.status();
  absl::Status possible = CheckOptimizable(*(*instance)->state());
  if (!possible.ok()) return possible;
  absl::StatusOr<StatePtr> state = (*instance)->Commit(
      call.WorkerRequest((*instance)->lane()), FromProto(request.if_version()),
      [&](const State& current) { return WithOptimizer(current, *optimizer); });
  if (!state.ok()) return state.status();
  v1::ConfigureOptimizerResponse response;
  *response.mutable_version() = VersionOf(**instance, **state);
  *response.mutable_optimizer() = ToProto(**optimizer);
  return response;
}

absl::StatusOr<v1::StepResponse> BackboneService::Step(
    Call& call, const v1::StepRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Resolve(call, request.instance());
  if (!instance.ok()) return instance.status();
  absl::StatusOr<StepDone> done =
      RunStep(call.WorkerRequest(/*lane=*/0), **instance,
              FromProto(request.if_version()), FromProto(request.options()));
  if (!done.ok()) return done.status();
  call.record().times = done->times;
  v1::StepResponse response;
  *response.mutable_version() = VersionOf(**instance, *done->output.state);
  *response.mutable_result() = ToProto(done->output);
  return response;
}

absl::Status BackboneService::GetOptimizerState(Call& call,
                                                MessageStream& stream) {
  v1::GetOptimizerStateRequest request;
  absl::Status read = stream.ReadRequest(request);
  if (!read.ok()) return read;
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Resolve(call, request.instance());
  if (!instance.ok()) return instance.status();
  const StatePtr state = (*instance)->state();
  absl::Status expected =
      (*instance)->CheckVersion(FromProto(request.if_version()), *state);
  if (!expected.ok()) return expected;
  absl::Status there = CheckStep(*state, {});
  if (!there.ok()) return there;

  const OptimizerState& optimizer = *state->optimizer;
  const Layout& layout = (*instance)->architecture().layout();
  v1::GetOptimizerStateResult result;
  *result.mutable_version() = VersionOf(**instance, *state);
  *result.mutable_optimizer() = ToProto(optimizer);
  std::vector<at::Tensor> tensors;
  for (size_t p = 0; p < optimizer.slots.size(); ++p) {
    const std::vector<at::Tensor>& slots = optimizer.slots[p];
    if (slots.empty()) continue;
    const std::vector<std::string_view> names = SlotNames(
        optimizer.kind, optimizer.groups[optimizer.group_of[p].value()]);
    for (size_t s = 0; s < slots.size(); ++s) {
      *result.add_tensors() =
          Spec(SlotTensorName(layout.parameters()[p], names[s]), slots[s]);
      tensors.push_back(slots[s]);
    }
  }
  return Download(call, stream, **instance, result, std::move(tensors));
}

absl::StatusOr<v1::SetOptimizerStateResponse>
BackboneService::SetOptimizerState(Call& call, MessageStream& stream,
                                   const v1::SetOptimizerStateHeader& header) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Resolve(call, header.instance());
  if (!instance.ok()) return instance.status();
  const Layout& layout = (*instance)->architecture().layout();
  absl::StatusOr<OptimizerPtr> optimizer =
      FromProto(header.optimizer(), layout);
  if (!optimizer.ok()) return optimizer.status();
  const StatePtr found = (*instance)->state();
  absl::Status valid = CheckOptimizable(*found);
  if (!valid.ok()) return valid;
  SlotPlan plan(**optimizer, layout, *found);
  for (const v1::TensorSpec& spec : header.tensors()) {
    valid = plan.Add(spec);
    if (!valid.ok()) return valid;
  }
  valid = plan.CheckComplete();
  if (!valid.ok()) return valid;
  absl::StatusOr<std::vector<at::Tensor>> values =
      Upload(server(), call, stream, plan.models(), WholeSlices(plan.models()));
  if (!values.ok()) return values.status();
  absl::StatusOr<StatePtr> state = (*instance)->Commit(
      call.WorkerRequest((*instance)->lane()), FromProto(header.if_version()),
      [&](const State& current) {
        return WithOptimizer(
            current, WithSlots(**optimizer, plan.places(), *values, current));
      });
  if (!state.ok()) return state.status();
  v1::SetOptimizerStateResponse response;
  *response.mutable_version() = VersionOf(**instance, **state);
  return response;
}

}  // namespace backboned::rpc
