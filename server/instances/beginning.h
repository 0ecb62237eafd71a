// Plans how an instance begins.

#ifndef BACKBONED_SERVER_INSTANCES_BEGINNING_H_
#define BACKBONED_SERVER_INSTANCES_BEGINNING_H_

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backbones/architecture.h"
#include "backbones/arguments.h"
#include "backbones/state.h"
#include "server/checkpoints/checkpoint_store.h"
#include "server/checkpoints/saved_state.h"
#include "server/device/device_worker.h"
#include "server/device/precision.h"
#include "server/instances/instance.h"
#include "server/instances/settings.h"
#include "server/instances/weights_folder.h"

namespace backboned {

// The ways to begin. Each gives the first State; the first three need the
// network of CreateOptions, the others have that of another instance.

// Draws all tensors.
struct Drawn {
  std::optional<uint64_t> seed = {};  // Absent: a random one.
  std::string rng_state = {};         // In place of a seed; empty: none.
};

// Loads a weights file. Tensors that it lacks are drawn.
struct Loaded {
  WeightsOptions weights;
  Drawn rest = {};
};

// Shares the tensors of `source`, whose version meets `condition`.
struct Cloned {
  std::shared_ptr<Instance> source;
  VersionCondition condition = {};
  CloneParts parts = {};
};

// Does the same without gradients and optimizer, and draws a new head.
struct Forked {
  std::shared_ptr<Instance> source;
  VersionCondition condition = {};
  int64_t num_classes = 0;
  std::optional<uint64_t> seed = {};  // Absent: a random one.
};

// Reads a checkpoint.
struct Restored {
  CheckpointStore* store = nullptr;
  std::vector<StateReader::File> files;
  std::shared_ptr<const void> hold = {};  // Of the files.
  OptimizerPtr optimizer;                 // Without its state; null: none.
  // As the checkpoint's instance had them.
  std::string weights;
  std::string weights_sha256;
  std::vector<std::string> columns = {};
  std::vector<std::string> column_uids = {};
  // Of an instance that comes back after a restart; else it is a new one.
  struct Former {
    std::string uid;
    absl::Time created;
    StateVersion version;
    uint64_t grads_changes = 0;
    std::optional<Rollback> rollback = {};
  };
  std::optional<Former> former = {};
  bool asleep = false;  // Reads nothing yet: Waker does, at the first use.
};

using Beginning = std::variant<Drawn, Loaded, Restored, Cloned, Forked>;

// Options of a new instance.
struct CreateOptions {
  std::string name;  // Empty: chosen, and the instance dies with `session`.
  std::string owner;
  std::string session;
  // The network, unless it is cloned or forked.
  std::string benchmark;     // This, or `architecture`.
  std::string architecture;  // This, or `benchmark`.
  Arguments arguments;       // Take precedence over the benchmark's.
  Beginning beginning = {};
  bool exist_ok = false;  // Not for checkpoints, clones and forks.
  std::string device;     // As Server::FindWorker takes it.
  std::optional<Normalization> normalization;
  bool random_init =
      false;  // Begins without weights, even if Mammoth loads some.
  // Absent: the defaults; a clone and a fork have the source's, but are
  // writable and without a feature cache.
  std::optional<Settings> settings;
  at::ScalarType dtype = at::kFloat;  // Of parameters and floating buffers.
  Precision precision = Precision::kDefault;  // Clones have the source's.
  // Earlier columns, the oldest first.
  std::vector<std::shared_ptr<Instance>> columns;
  // Called before the instance is added. Returns an error, which is passed on,
  // if the caller no longer waits. Empty: the caller waits.
  std::function<absl::Status()> check_wanted = {};
  // The caller, for work on a worker.
  DeviceWorker::Request caller = {};
};

// The result of CreateInstance.
struct Created {
  std::shared_ptr<Instance> instance;
  bool existed = false;
  std::string rng_state = {};  // After the draws, if a state was given.
  // Keys of the weights, if some were loaded.
  std::vector<std::string> missing_keys = {};
  std::vector<std::string> unexpected_keys = {};
};

// The plan of an instance, all defaults filled in.
struct Blueprint {
  // Without the digest of weights that are loaded, and, unless it comes back,
  // the time of creation.
  Instance::Identity identity;
  std::shared_ptr<const Architecture> architecture;
  Settings settings;
  std::shared_ptr<Instance> source;  // Of a clone or a fork.
};

// Plans the instance that `options` ask for; an unnamed one gets a name.
//
// Returns kNotFound (unknown benchmark or architecture) or kInvalidArgument
// (name, arguments, normalization, settings).
absl::StatusOr<Blueprint> MakeBlueprint(const CreateOptions& options);

// Returns kFailedPrecondition (kWeightsRequired) if Mammoth loads weights and
// `options` name none; kInvalidArgument if they contradict each other, or, with
// the column's name, if one cannot be an earlier column of an instance on
// `worker`.
absl::Status CheckBeginning(const CreateOptions& options, const Blueprint& plan,
                            const DeviceWorker& worker);

// Returns the answer if `instance` has the requested name already: `instance`
// if `options` allow that and would make its equal on `worker`, else
// kAlreadyExists, which names the difference. Not compared are the origins of
// the parameters (seed, loading of weights), weights that `options` do not
// name, and a feature cache that they do not ask for.
absl::StatusOr<Created> Existing(std::shared_ptr<Instance> instance,
                                 const CreateOptions& options,
                                 const Blueprint& plan,
                                 const DeviceWorker& worker);

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_BEGINNING_H_
