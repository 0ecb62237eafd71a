// Brings instances that sleep back to memory.

#ifndef BACKBONED_SERVER_INSTANCES_WAKER_H_
#define BACKBONED_SERVER_INSTANCES_WAKER_H_

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/task.h"
#include "server/checkpoints/checkpoint_store.h"
#include "server/device/device_worker.h"
#include "server/instances/instance.h"

namespace backboned {

// Reads the States of instances that sleep from a store.
//
// Thread-safe.
class Waker {
 public:
  // `store` must outlive this object.
  explicit Waker(CheckpointStore& store) : store_(store) {}

  // Gives `instance` its State back, if it sleeps. Concurrent callers take
  // turns with one reading, which goes on while one of them waits.
  //
  // Returns the errors of StateReader and of DeviceWorker::Run, kNotFound if
  // the instance was deleted, and kFailedPrecondition (kCheckpointUnreadable)
  // if the store does not have it: the instance sleeps on.
  Task<absl::Status> Wake(std::shared_ptr<Instance> instance,
                          DeviceWorker::Request request);

 private:
  struct Waking;

  // Returns the present reading of `instance`, or a new one.
  std::shared_ptr<Waking> WakingOf(const std::shared_ptr<Instance>& instance,
                                   const StatePtr& asleep);

  CheckpointStore& store_;
  absl::Mutex mutex_;
  // By uid.
  std::map<std::string, std::weak_ptr<Waking>> wakings_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_WAKER_H_
