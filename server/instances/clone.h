// What a clone is to be.

#ifndef BACKBONED_SERVER_INSTANCES_CLONE_H_
#define BACKBONED_SERVER_INSTANCES_CLONE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "backbones/state.h"
#include "server/device/device_worker.h"
#include "server/instances/instance.h"
#include "server/instances/settings.h"

namespace backboned {

struct CloneOptions {
  std::shared_ptr<Instance> source;
  std::string name;  // Empty: chosen, and the clone dies with `session`.
  std::string owner;
  std::string session;
  VersionCondition condition;
  // Absent: the source's, but not read-only, and without a feature cache.
  std::optional<Settings> settings;
  CloneParts parts;
  // Makes a fork: the head is fresh and has so many classes, drawn from `seed`,
  // or at random. Without gradients and optimizer.
  std::optional<int64_t> num_classes;
  std::optional<uint64_t> seed;
  // As in CreateOptions.
  std::function<absl::Status()> check_wanted = {};
  DeviceWorker::Request caller = {};
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_CLONE_H_
