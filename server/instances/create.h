// What an instance is to be.

#ifndef BACKBONED_SERVER_INSTANCES_CREATE_H_
#define BACKBONED_SERVER_INSTANCES_CREATE_H_

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "backbones/arguments.h"
#include "server/device/device_worker.h"
#include "server/instances/instance.h"
#include "server/instances/settings.h"
#include "server/instances/weights_folder.h"

namespace backboned {

// What to make.
struct CreateOptions {
  std::string name;  // Empty: chosen, and the instance dies with `session`.
  std::string owner;
  std::string session;
  std::string benchmark;     // One of the two.
  std::string architecture;  // One of the two.
  Arguments arguments;       // Go before the benchmark's.
  std::optional<uint64_t> seed;
  std::string rng_state;  // Instead of a seed; empty: none.
  bool exist_ok = false;
  std::string device;  // Empty: the default one.
  std::optional<Normalization> normalization;
  std::optional<WeightsOptions> weights;
  bool random_init =
      false;  // Good without weights, even if Mammoth loads some.
  Settings settings;
  at::ScalarType dtype = at::kFloat;  // Of parameters and floating buffers.
  std::vector<std::string> columns;   // Earlier ones, the oldest first.
  // Asked before the instance is there: an error if nobody waits for it any
  // more, which is returned. Empty: somebody does.
  std::function<absl::Status()> check_wanted = {};
  // Who asks, for what is computed.
  DeviceWorker::Request caller = {};
};

// What was made.
struct Created {
  std::shared_ptr<Instance> instance;
  bool existed = false;
  std::string rng_state;  // After the drawing, if a state was given.
  // Of the weights, if some were loaded.
  std::vector<std::string> missing_keys = {};
  std::vector<std::string> unexpected_keys = {};
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_CREATE_H_
