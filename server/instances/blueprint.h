// Checks and draws a new instance.

#ifndef BACKBONED_SERVER_INSTANCES_BLUEPRINT_H_
#define BACKBONED_SERVER_INSTANCES_BLUEPRINT_H_

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backbones/architecture.h"
#include "backbones/arguments.h"
#include "backbones/initial_draw.h"
#include "backbones/layout.h"
#include "backbones/state.h"
#include "server/device/device_worker.h"
#include "server/instances/instance.h"
#include "server/instances/settings.h"
#include "server/instances/weights_folder.h"

namespace backboned {

// Options of a new instance.
struct CreateOptions {
  std::string name;  // Empty: chosen, and the instance dies with `session`.
  std::string owner;
  std::string session;
  std::string benchmark;     // This, or `architecture`.
  std::string architecture;  // This, or `benchmark`.
  Arguments arguments;       // Take precedence over the benchmark's.
  std::optional<uint64_t> seed;
  std::string rng_state;  // In place of a seed; empty: none.
  bool exist_ok = false;
  std::string device;  // Empty: the default device.
  std::optional<Normalization> normalization;
  std::optional<WeightsOptions> weights;
  bool random_init =
      false;  // Begins without weights, even if Mammoth loads some.
  Settings settings;
  at::ScalarType dtype = at::kFloat;  // Of parameters and floating buffers.
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
  std::string rng_state;  // After the draws, if a state was given.
  // Keys of the weights, if some were loaded.
  std::vector<std::string> missing_keys = {};
  std::vector<std::string> unexpected_keys = {};
};

// The plan of an instance, all defaults filled in.
struct Blueprint {
  std::string source;     // As the caller named it, in canonical spelling.
  std::string benchmark;  // Empty: none.
  std::shared_ptr<const Architecture> architecture;
  bool pretrained = false;  // Mammoth always loads weights into it.
  Normalization normalization;
};

// The beginning of an instance.
struct Beginning {
  StatePtr state;
  std::string rng_state;  // The generator's state after the draws.
  std::string weights_sha256 = {};
  LoadPlan loaded = {};
};

// Plans the instance that `options` ask for.
//
// Returns kNotFound (unknown benchmark or architecture) or kInvalidArgument
// (arguments).
absl::StatusOr<Blueprint> MakeBlueprint(const CreateOptions& options);

// Returns kInvalidArgument if normalization, settings or name do not fit.
absl::Status CheckBlueprint(const CreateOptions& options,
                            const Blueprint& plan);

// Returns kFailedPrecondition (kWeightsRequired) if Mammoth loads weights and
// `options` name none, kInvalidArgument if they contradict each other.
absl::Status CheckWeights(const CreateOptions& options, const Blueprint& plan);

// Returns kInvalidArgument, which names the column, if one of `options` cannot
// be an earlier column of an instance on `worker`.
absl::Status CheckColumns(const CreateOptions& options, const Blueprint& plan,
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

// Draws the first State of `layout`, or the head's parameters alone, as a chore
// of the caller's. Returns DeviceWorker::Run's errors.
absl::StatusOr<State> Draw(const Layout& layout, const at::Generator& generator,
                           at::ScalarType dtype, InitialDraw::Part part,
                           const DeviceWorker::Request& caller,
                           DeviceWorker& chores);

// Moves parameters and buffers of `state` to the worker's device. Returns
// DeviceWorker::Run's errors.
absl::Status MoveTo(DeviceWorker& worker, const DeviceWorker::Request& caller,
                    State& state);

// Draws the parameters, or loads them from `folder`, whose weights are checked
// before anything is drawn. That is a chore of the caller's; only a copy to
// another device runs on its worker.
//
// Returns kInvalidArgument (seed, generator state, weights that do not fit),
// kNotFound or kFailedPrecondition (no such weights, or corrupt ones), and the
// errors of DeviceWorker::Run.
absl::StatusOr<Beginning> Begin(const CreateOptions& options,
                                const Blueprint& plan,
                                const WeightsFolder& folder,
                                DeviceWorker& chores, DeviceWorker& worker);

// Returns the identity of the instance; an unnamed one gets a name.
Instance::Identity IdentityOf(const CreateOptions& options,
                              const Blueprint& plan, const Beginning& begin);

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_BLUEPRINT_H_
