// Serves SaveCheckpoint, LoadCheckpoint, ListCheckpoints and DeleteCheckpoint.

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/errors.h"
#include "base/names.h"
#include "server/checkpoints/checkpoint_store.h"
#include "server/instances/beginning.h"
#include "server/rpc/checkpoints/saving.h"
#include "server/rpc/convert/checkpoint_convert.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/instances/instance_service.h"
#include "server/rpc/instances/page.h"

namespace backboned::rpc {
namespace {

// A checkpoint's owner and name.
struct Reference {
  std::string owner;
  std::string name;
};

// Returns whose checkpoint a request means by `NAME` or `OWNER/NAME`. To all
// but admins there are no others than the caller's.
absl::StatusOr<Reference> ReferenceOf(const Call& call,
                                      const std::string& text) {
  const size_t slash = text.find('/');
  Reference reference = {.owner = call.principal(), .name = text};
  if (slash != std::string::npos) {
    reference = {text.substr(0, slash), text.substr(slash + 1)};
  }
  if (reference.owner == call.principal() ||
      call.caller().rights == Rights::kAdmin) {
    return reference;
  }
  return Error(absl::StatusCode::kNotFound, Reason::kCheckpointNotFound,
               absl::StrCat("no checkpoint ", Quote(text)));
}

// Settings with which a new instance begins that was saved with `saved`.
Settings SettingsOfCopy(Settings saved) {
  saved.read_only = false;
  saved.shared = false;
  saved.feature_cache_bytes = 0;
  return saved;
}

}  // namespace

Task<absl::StatusOr<v1::SaveCheckpointResponse>>
InstanceService::SaveCheckpoint(Call& call,
                                const v1::SaveCheckpointRequest& request) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      co_await Resolve(call, request.instance(), Access::kRead);
  if (!instance.ok()) co_return instance.status();
  absl::StatusOr<CheckpointStore*> store = server().checkpoints();
  if (!store.ok()) co_return store.status();
  absl::Status valid = CheckName(request.name());
  if (valid.ok() && request.keep() < 0) {
    valid = InvalidOption(
        absl::StrCat("keep is ", request.keep(), ", must be at least 0"));
  }
  if (!valid.ok()) co_return valid;
  const StatePtr state = (*instance)->state();
  absl::Status expected =
      (*instance)->CheckVersion(FromProto(request.if_version()), *state);
  if (!expected.ok()) co_return expected;
  const SaveOptions options = {.owner = call.principal(),
                               .name = request.name(),
                               .keep = std::max(request.keep(), 1)};
  absl::StatusOr<v1::Checkpoint> saved = co_await SaveState(
      **store, server().chores(), call.WorkerRequest(/*lane=*/0), *instance,
      state, options);
  if (!saved.ok()) co_return saved.status();
  v1::SaveCheckpointResponse response;
  *response.mutable_checkpoint() = *std::move(saved);
  co_return response;
}

Task<absl::StatusOr<v1::LoadCheckpointResponse>>
InstanceService::LoadCheckpoint(Call& call,
                                const v1::LoadCheckpointRequest& request) {
  absl::StatusOr<CheckpointStore*> store = server().checkpoints();
  if (!store.ok()) co_return store.status();
  absl::StatusOr<Reference> reference = ReferenceOf(call, request.checkpoint());
  if (!reference.ok()) co_return reference.status();
  absl::StatusOr<CheckpointStore::Found> found =
      (*store)->Find(reference->owner, reference->name, request.number());
  if (!found.ok()) co_return found.status();
  absl::StatusOr<CreateOptions> options = OptionsOf(found->record, **store);
  if (!options.ok()) co_return options.status();
  std::get<Restored>(options->beginning).hold = std::move(found->hold);
  options->name = request.name();
  options->owner = call.principal();
  options->session = call.session();
  options->device = request.device();
  options->settings = request.has_settings()
                          ? FromProto(request.settings())
                          : SettingsOfCopy(*options->settings);
  options->check_wanted = [&call] { return call.CheckWanted(); };
  options->caller = call.WorkerRequest(/*lane=*/0);
  call.record().instance = request.name();
  absl::StatusOr<Created> created = co_await server().CreateInstance(*options);
  if (!created.ok()) co_return created.status();
  call.record().instance = created->instance->identity().name;
  call.set_found(*created->instance);
  v1::LoadCheckpointResponse response;
  *response.mutable_instance() = DescribeInFull(created->instance);
  *response.mutable_checkpoint() =
      std::move(*found->record.mutable_checkpoint());
  co_return response;
}

Task<absl::StatusOr<v1::ListCheckpointsResponse>>
InstanceService::ListCheckpoints(Call& call,
                                 const v1::ListCheckpointsRequest& request) {
  std::vector<v1::Checkpoint> all;
  if (absl::StatusOr<CheckpointStore*> store = server().checkpoints();
      store.ok()) {
    const bool is_admin = call.caller().rights == Rights::kAdmin;
    all = (*store)->List(is_admin ? std::nullopt
                                  : std::optional(call.principal()));
  }
  const auto key_of = [](const v1::Checkpoint& checkpoint) {
    // Sorts as owner, name and number do.
    return absl::StrFormat("%s %s %019d", checkpoint.owner(), checkpoint.name(),
                           checkpoint.number());
  };
  absl::StatusOr<Page> page =
      CutPage(all, key_of, request.page_size(), request.page_token());
  if (!page.ok()) co_return page.status();
  v1::ListCheckpointsResponse response;
  std::vector<v1::Checkpoint> shown(
      all.begin() + static_cast<std::ptrdiff_t>(page->begin),
      all.begin() + static_cast<std::ptrdiff_t>(page->end));
  FillPage(all, key_of, std::move(shown), *page,
           *response.mutable_checkpoints());
  response.set_next_page_token(page->next_token);
  co_return response;
}

Task<absl::StatusOr<v1::DeleteCheckpointResponse>>
InstanceService::DeleteCheckpoint(Call& call,
                                  const v1::DeleteCheckpointRequest& request) {
  absl::StatusOr<CheckpointStore*> store = server().checkpoints();
  if (!store.ok()) co_return store.status();
  absl::StatusOr<Reference> reference = ReferenceOf(call, request.checkpoint());
  if (!reference.ok()) co_return reference.status();
  const DeviceWorker::Request caller = call.WorkerRequest(/*lane=*/0);
  absl::Status deleted = co_await (*store)->Delete(
      caller, reference->owner, reference->name, request.number());
  if (!deleted.ok()) co_return deleted;
  co_return v1::DeleteCheckpointResponse();
}

}  // namespace backboned::rpc
