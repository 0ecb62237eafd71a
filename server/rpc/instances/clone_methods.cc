// Serves CloneInstance and UpdateInstance.

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "server/instances/clone.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/instances/instance_service.h"

namespace backboned::rpc {
namespace {

CloneOptions OptionsOf(const Call& call,
                       const v1::CloneInstanceRequest& request,
                       std::shared_ptr<Instance> source) {
  CloneOptions options = {
      .source = std::move(source),
      .name = request.name(),
      .owner = call.principal(),
      .session = call.session(),
      .condition = FromProto(request.if_version()),
      .parts = {.grads = request.with_grads(),
                .optimizer = request.with_optimizer()},
      .check_wanted = [&call] { return call.CheckWanted(); },
      .caller = call.WorkerRequest(/*lane=*/0)};
  if (request.has_settings()) options.settings = FromProto(request.settings());
  if (request.has_num_classes()) options.num_classes = request.num_classes();
  if (request.has_seed()) options.seed = request.seed();
  return options;
}

// The settings that a mask names.
struct Named {
  bool read_only = false;
  bool frozen = false;
  bool feature_cache_bytes = false;
};

constexpr std::string_view kSettings = "read_only, frozen, feature_cache_bytes";

absl::StatusOr<Named> NamedBy(const google::protobuf::FieldMask& mask) {
  Named named;
  for (const std::string& path : mask.paths()) {
    if (path == "read_only") {
      named.read_only = true;
    } else if (path == "frozen") {
      named.frozen = true;
    } else if (path == "feature_cache_bytes") {
      named.feature_cache_bytes = true;
    } else {
      return InvalidOption(
          absl::StrCat("update_mask names ", Quote(path),
                       "; valid settings: ", std::string(kSettings)));
    }
  }
  if (mask.paths().empty()) {
    return InvalidOption(
        absl::StrCat("update_mask names no setting; valid settings: ",
                     std::string(kSettings)));
  }
  return named;
}

}  // namespace

absl::StatusOr<v1::CloneInstanceResponse> InstanceService::CloneInstance(
    Call& call, const v1::CloneInstanceRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> source =
      Resolve(call, request.instance());
  if (!source.ok()) return source.status();
  absl::StatusOr<std::shared_ptr<Instance>> clone =
      server().CloneInstance(OptionsOf(call, request, *source));
  if (!clone.ok()) return clone.status();
  v1::CloneInstanceResponse response;
  *response.mutable_instance() = Describe(*clone);
  *response.mutable_instance()->mutable_layout() = LayoutOf(**clone);
  return response;
}

absl::StatusOr<v1::UpdateInstanceResponse> InstanceService::UpdateInstance(
    Call& call, const v1::UpdateInstanceRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      Resolve(call, request.instance());
  if (!instance.ok()) return instance.status();
  absl::StatusOr<Named> named = NamedBy(request.update_mask());
  if (!named.ok()) return named.status();
  const Settings wanted = FromProto(request.settings());
  absl::Status changed = (*instance)->ChangeSettings(
      call.WorkerRequest((*instance)->lane()), FromProto(request.if_version()),
      [&](Settings& settings) {
        if (named->read_only) settings.read_only = wanted.read_only;
        if (named->frozen) settings.frozen = wanted.frozen;
        if (named->feature_cache_bytes) {
          settings.feature_cache_bytes = wanted.feature_cache_bytes;
        }
      });
  if (!changed.ok()) return changed;
  v1::UpdateInstanceResponse response;
  *response.mutable_instance() = Describe(*instance);
  return response;
}

}  // namespace backboned::rpc
