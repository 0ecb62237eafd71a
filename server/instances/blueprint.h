// How an instance is made: what is asked for, checked and drawn.

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

// What an instance is made from, all defaults filled in.
struct Blueprint {
  std::string source;     // What the caller named, in canonical spelling.
  std::string benchmark;  // Empty: none.
  std::shared_ptr<const Architecture> architecture;
  bool pretrained = false;  // Mammoth always loads weights into it.
  Normalization normalization;
  std::vector<std::shared_ptr<Instance>> columns;  // Earlier ones.
};

// How an instance begins.
struct Beginning {
  StatePtr state;
  std::string rng_state;  // After the drawing.
  std::string weights_sha256 = {};
  LoadPlan loaded = {};
};

// Plans what `options` ask for, the columns left out.
//
// Returns kNotFound (no such benchmark or architecture) or kInvalidArgument
// (arguments).
absl::StatusOr<Blueprint> MakeBlueprint(const CreateOptions& options);

// Returns kInvalidArgument if normalization, settings or name do not fit.
absl::Status CheckBlueprint(const CreateOptions& options,
                            const Blueprint& plan);

// Returns kFailedPrecondition (kWeightsRequired) if Mammoth loads weights and
// `options` name none, kInvalidArgument if they contradict each other.
absl::Status CheckWeights(const CreateOptions& options, const Blueprint& plan);

// Returns kInvalidArgument that names a column which cannot be an earlier one
// of what is planned for `worker`, or OK.
absl::Status CheckColumns(const CreateOptions& options, const Blueprint& plan,
                          const DeviceWorker& worker);

// The answer to a name that `instance` has already: itself if it may exist and
// is what `options` would make on `worker`, or kAlreadyExists, which names what
// differs. Not compared are what the parameters are by now (seed, how weights
// were loaded), weights if `options` say nothing of them, and a feature cache
// if they ask for none.
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

// Draws the parameters, or loads them from `folder`; before anything is drawn
// the weights are looked at. That is a chore of the caller's; only a copy to
// another device is the worker's.
//
// Returns kInvalidArgument (seed, generator state, weights that do not fit),
// kNotFound or kFailedPrecondition (no such weights, or corrupt ones), and the
// errors of DeviceWorker::Run.
absl::StatusOr<Beginning> Begin(const CreateOptions& options,
                                const Blueprint& plan,
                                const WeightsFolder& folder,
                                DeviceWorker& chores, DeviceWorker& worker);

// Who the instance will be; an unnamed one gets a name.
Instance::Identity IdentityOf(const CreateOptions& options,
                              const Blueprint& plan, const Beginning& begin);

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_BLUEPRINT_H_
