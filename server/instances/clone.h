// Makes clones and forks of an instance.

#ifndef BACKBONED_SERVER_INSTANCES_CLONE_H_
#define BACKBONED_SERVER_INSTANCES_CLONE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backbones/state.h"
#include "server/device/device_worker.h"
#include "server/instances/instance.h"
#include "server/instances/settings.h"
#include "server/limits/budget.h"

namespace backboned {

struct CloneOptions {
  std::shared_ptr<Instance> source;
  std::string name;  // Empty: chosen, and the clone dies with `session`.
  std::string owner;
  std::string session;
  VersionCondition condition;
  // Absent: the source's, but writable and without a feature cache.
  std::optional<Settings> settings;
  CloneParts parts;
  // Makes a fork: a new head with this number of classes, drawn from `seed`, or
  // at random. Without gradients and optimizer.
  std::optional<int64_t> num_classes;
  std::optional<uint64_t> seed;
  // As in CreateOptions.
  std::function<absl::Status()> check_wanted = {};
  DeviceWorker::Request caller = {};
};

// Returns kInvalidArgument (name, classes) if `options` are not valid.
absl::Status CheckClone(const CloneOptions& options);

// Makes an instance that shares the tensors of another one, and takes its
// feature cache from `cache_room`. A fork's head is drawn by `chores`.
//
// Returns kInvalidArgument (settings, classes), kAborted (the condition), and
// the errors of DeviceWorker::Run.
absl::StatusOr<std::shared_ptr<Instance>> MakeClone(
    const CloneOptions& options, DeviceWorker& chores,
    std::shared_ptr<Budget> cache_room);

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_CLONE_H_
