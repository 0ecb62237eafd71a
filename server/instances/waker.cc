#include "server/instances/waker.h"

#include <functional>
#include <optional>
#include <utility>

#include "server/checkpoints/saved_state.h"
#include "server/device/chores.h"
#include "server/instances/first_state.h"
#include "server/limits/catching.h"

namespace backboned {

// A reading in progress. All is used on the disk's worker only, but `state`
// once it is there: that on the instance's.
struct Waker::Waking {
  Waking(StatePtr sleeping, CheckpointStore& of,
         const std::shared_ptr<Instance>& who)
      : asleep(std::move(sleeping)), store(of), instance(who) {}

  // Reads the next file; returns false once all are read.
  absl::StatusOr<bool> Advance() {
    if (state != nullptr) return false;
    // A file that one caller could not read is not left out for the next one.
    if (!failure.ok()) return failure;
    bool more = false;
    failure = RunCatching([&]() -> absl::Status {
      if (!reader) {
        more = true;
        return Begin();
      }
      const absl::StatusOr<bool> read = reader->ReadNext();
      if (read.ok()) more = *read;
      return read.status();
    });
    if (!failure.ok()) return failure;
    if (more) return true;
    state = std::make_shared<State>(reader->Take());
    state->params_version = asleep->params_version;
    state->buffers_version = asleep->buffers_version;
    state->grads_changes = asleep->grads_changes;
    return false;
  }

  absl::Status Begin() {
    absl::StatusOr<CheckpointStore::Found> found =
        store.FindLiving(instance->uid());
    if (!found.ok()) {
      absl::Status alive = instance->CheckAlive();
      return alive.ok() ? found.status() : alive;
    }
    hold = std::move(found->hold);
    reader.emplace(store.folder(), FilesOf(found->record),
                   instance->architecture().layout(), DtypeOf(*asleep),
                   asleep->optimizer);
    return absl::OkStatus();
  }

  const StatePtr asleep;
  CheckpointStore& store;
  const std::shared_ptr<Instance> instance;
  std::shared_ptr<const void> hold;  // Of the files.
  std::optional<StateReader> reader;
  absl::Status failure;
  std::shared_ptr<State> state;
  bool is_moved = false;
};

std::shared_ptr<Waker::Waking> Waker::WakingOf(
    const std::shared_ptr<Instance>& instance, const StatePtr& asleep) {
  absl::MutexLock lock(&mutex_);
  std::erase_if(wakings_,
                [](const auto& each) { return each.second.expired(); });
  std::weak_ptr<Waking>& known = wakings_[instance->uid()];
  std::shared_ptr<Waking> waking = known.lock();
  if (waking == nullptr || waking->asleep != asleep) {
    waking = std::make_shared<Waking>(asleep, store_, instance);
    known = waking;
  }
  return waking;
}

Task<absl::Status> Waker::Wake(std::shared_ptr<Instance> instance,
                               DeviceWorker::Request request) {
  const StatePtr asleep = instance->state();
  if (!IsMeta(*asleep)) co_return absl::OkStatus();
  const std::shared_ptr<Waking> shared = WakingOf(instance, asleep);
  Waking& waking = *shared;
  const std::function<absl::StatusOr<bool>()> step = [&] {
    return waking.Advance();
  };
  const absl::StatusOr<DeviceWorker::Times> read =
      co_await RunChore(store_.disk(), request, step);
  if (!read.ok()) co_return read.status();
  DeviceWorker& worker = instance->worker();
  if (!worker.device().is_cpu()) {
    const DeviceWorker::Work move = [&] {
      if (!waking.is_moved) MoveTo(worker.device(), *waking.state);
      waking.is_moved = true;
      return absl::OkStatus();
    };
    const absl::StatusOr<DeviceWorker::Times> moved =
        co_await worker.copies().Run(request, move);
    if (!moved.ok()) co_return moved.status();
  }
  request.lane = instance->lane();
  const DeviceWorker::Work publish = [&] {
    instance->Awake(asleep, waking.state);
    return absl::OkStatus();
  };
  const absl::StatusOr<DeviceWorker::Times> published =
      co_await worker.Run(request, publish);
  co_return published.status();
}

}  // namespace backboned
