#include "server/instances/waker.h"

#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "server/checkpoints/saved_state.h"
#include "server/device/chores.h"
#include "server/instances/first_state.h"

namespace backboned {

// A reading in progress. Its reader is used on the disk's worker only, `state`
// after that on the instance's.
struct Waker::Waking {
  Waking(StatePtr sleeping, CheckpointStore::Found found,
         CheckpointStore& store, const Instance& instance)
      : asleep(std::move(sleeping)),
        hold(std::move(found.hold)),
        reader(store.folder(), FilesOf(found.record),
               instance.architecture().layout(), DtypeOf(*asleep),
               asleep->optimizer) {}

  // Reads the next file; returns false once all are read.
  absl::StatusOr<bool> Advance() {
    if (state != nullptr) return false;
    if (!failure.ok()) return failure;
    const absl::StatusOr<bool> more = reader.ReadNext();
    if (!more.ok()) {
      failure = more.status();
      return failure;
    }
    if (*more) return true;
    state = std::make_shared<State>(reader.Take());
    state->params_version = asleep->params_version;
    state->buffers_version = asleep->buffers_version;
    return false;
  }

  const StatePtr asleep;
  const std::shared_ptr<const void> hold;  // Of the files.
  StateReader reader;
  absl::Status failure;
  std::shared_ptr<State> state;
  bool is_moved = false;
};

absl::StatusOr<std::shared_ptr<Waker::Waking>> Waker::WakingOf(
    const Instance& instance, const StatePtr& asleep) {
  absl::MutexLock lock(&mutex_);
  std::weak_ptr<Waking>& known = wakings_[instance.uid()];
  std::shared_ptr<Waking> waking = known.lock();
  if (waking != nullptr && waking->asleep == asleep) return waking;
  absl::StatusOr<CheckpointStore::Found> found =
      store_.FindLiving(instance.uid());
  if (!found.ok()) return found.status();
  waking =
      std::make_shared<Waking>(asleep, *std::move(found), store_, instance);
  known = waking;
  return waking;
}

Task<absl::Status> Waker::Wake(std::shared_ptr<Instance> instance,
                               DeviceWorker::Request request) {
  const StatePtr asleep = instance->state();
  if (!IsMeta(*asleep)) co_return absl::OkStatus();
  absl::StatusOr<std::shared_ptr<Waking>> found = WakingOf(*instance, asleep);
  if (!found.ok()) co_return found.status();
  Waking& waking = **found;
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
