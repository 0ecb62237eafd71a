// Serves CloneInstance and UpdateInstance.

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errors.h"
#include "server/instances/beginning.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/instances/instance_service.h"

namespace backboned::rpc {
namespace {

absl::StatusOr<Beginning> BeginningOf(const v1::CloneInstanceRequest& request,
                                      std::shared_ptr<Instance> source) {
  if (!request.has_num_classes()) {
    if (request.has_seed()) return InvalidOption("seed needs num_classes");
    return Cloned{.source = std::move(source),
                  .condition = FromProto(request.if_version()),
                  .parts = {.grads = request.with_grads(),
                            .optimizer = request.with_optimizer()}};
  }
  if (request.with_grads() || request.with_optimizer()) {
    return InvalidOption(
        "num_classes cannot be combined with with_grads or with_optimizer: a "
        "fork has a new head");
  }
  Forked forked = {.source = std::move(source),
                   .condition = FromProto(request.if_version()),
                   .num_classes = request.num_classes()};
  if (request.has_seed()) forked.seed = request.seed();
  return forked;
}

constexpr absl::string_view kSettings =
    "read_only, frozen, feature_cache_bytes, shared";

absl::Status CheckMask(const google::protobuf::FieldMask& mask) {
  for (const std::string& path : mask.paths()) {
    if (path != "read_only" && path != "frozen" &&
        path != "feature_cache_bytes" && path != "shared") {
      return InvalidOption(absl::StrCat("update_mask names ", Quote(path),
                                        "; valid settings: ", kSettings));
    }
  }
  if (!mask.paths().empty()) return absl::OkStatus();
  return InvalidOption(absl::StrCat(
      "update_mask names no setting; valid settings: ", kSettings));
}

// Copies the settings that a checked `mask` names.
void CopySettings(const google::protobuf::FieldMask& mask, const Settings& from,
                  Settings& to) {
  for (const std::string& path : mask.paths()) {
    if (path == "read_only") to.read_only = from.read_only;
    if (path == "frozen") to.frozen = from.frozen;
    if (path == "feature_cache_bytes") {
      to.feature_cache_bytes = from.feature_cache_bytes;
    }
    if (path == "shared") to.shared = from.shared;
  }
}

}  // namespace

Task<absl::StatusOr<v1::CloneInstanceResponse>> InstanceService::CloneInstance(
    Call& call, const v1::CloneInstanceRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> source =
      co_await Resolve(call, request.instance(), Access::kRead);
  if (!source.ok()) co_return source.status();
  absl::StatusOr<Beginning> beginning = BeginningOf(request, *source);
  if (!beginning.ok()) co_return beginning.status();
  CreateOptions options = {
      .name = request.name(),
      .owner = call.principal(),
      .session = call.session(),
      .beginning = *std::move(beginning),
      .check_wanted = [&call] { return call.CheckWanted(); },
      .caller = call.WorkerRequest(/*lane=*/0)};
  if (request.has_settings()) options.settings = FromProto(request.settings());
  absl::StatusOr<Created> clone = co_await server().CreateInstance(options);
  if (!clone.ok()) co_return clone.status();
  v1::CloneInstanceResponse response;
  *response.mutable_instance() = DescribeInFull(clone->instance);
  co_return response;
}

Task<absl::StatusOr<v1::UpdateInstanceResponse>>
InstanceService::UpdateInstance(Call& call,
                                const v1::UpdateInstanceRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      co_await Resolve(call, request.instance());
  if (!instance.ok()) co_return instance.status();
  absl::Status valid = CheckMask(request.update_mask());
  if (!valid.ok()) co_return valid;
  const Settings wanted = FromProto(request.settings());
  absl::Status changed = co_await (*instance)->ChangeSettings(
      call.WorkerRequest((*instance)->lane()), FromProto(request.if_version()),
      [&](Settings& settings) {
        CopySettings(request.update_mask(), wanted, settings);
      });
  if (!changed.ok()) co_return changed;
  server().registry().TellChange(**instance);
  v1::UpdateInstanceResponse response;
  *response.mutable_instance() = Describe(*instance);
  co_return response;
}

}  // namespace backboned::rpc
