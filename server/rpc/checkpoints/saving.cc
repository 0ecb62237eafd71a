#include "server/rpc/checkpoints/saving.h"

#include <functional>
#include <utility>
#include <vector>

#include "backboned/v1/record.pb.h"
#include "server/checkpoints/saved_state.h"
#include "server/rpc/convert/checkpoint_convert.h"

namespace backboned::rpc {
namespace {

// Returns what `state` consists of, contiguous and on the host.
Task<absl::StatusOr<std::vector<SavedTensor>>> TensorsOnHost(
    DeviceWorker::Request request, const Instance& instance,
    const State& state) {
  std::vector<SavedTensor> saved =
      TensorsToSave(state, instance.architecture().layout());
  std::vector<at::Tensor> tensors;
  for (const SavedTensor& one : saved) tensors.push_back(one.tensor);
  absl::StatusOr<std::vector<at::Tensor>> host =
      co_await instance.HostView(std::move(request), std::move(tensors));
  if (!host.ok()) co_return host.status();
  for (size_t i = 0; i < saved.size(); ++i) saved[i].tensor = (*host)[i];
  co_return saved;
}

}  // namespace

Task<absl::StatusOr<v1::Checkpoint>> SaveState(
    CheckpointStore& store, DeviceWorker& chores, DeviceWorker::Request request,
    std::shared_ptr<Instance> instance, StatePtr state, SaveOptions options) {
  absl::StatusOr<std::string> digest =
      co_await instance->Digest(chores, request, state);
  if (!digest.ok()) co_return digest.status();
  v1::Record record = RecordOf(*instance, *state);
  record.set_recovery(options.recovery);
  v1::Checkpoint& checkpoint = *record.mutable_checkpoint();
  checkpoint.set_owner(std::move(options.owner));
  checkpoint.set_name(std::move(options.name));
  if (!options.recovery) checkpoint.mutable_instance()->clear_rollback();
  checkpoint.mutable_instance()->set_digest(*std::move(digest));
  absl::StatusOr<std::vector<SavedTensor>> tensors =
      co_await TensorsOnHost(request, *instance, *state);
  if (!tensors.ok()) co_return tensors.status();
  const std::function<absl::Status()> check_wanted = [&] {
    return options.recovery ? instance->CheckAlive() : absl::OkStatus();
  };
  co_return co_await store.Save(request, std::move(record), *std::move(tensors),
                                options.keep, check_wanted);
}

}  // namespace backboned::rpc
