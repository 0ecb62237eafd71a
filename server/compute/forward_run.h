// Forwards of instances as the worker runs them: from host tensors to host
// tensors.

#ifndef BACKBONED_SERVER_COMPUTE_FORWARD_RUN_H_
#define BACKBONED_SERVER_COMPUTE_FORWARD_RUN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backbones/forward.h"
#include "backbones/inputs.h"
#include "backbones/state.h"
#include "server/device/device_worker.h"
#include "server/instances/feature_cache.h"
#include "server/instances/instance.h"
#include "server/limits/budget.h"
#include "server/limits/memory_account.h"
#include "server/tapes/tape_store.h"

namespace backboned {

// One forward to run.
struct ForwardWork {
  std::shared_ptr<Instance> instance;
  // On the CPU: of a floating-point type, or uint8 images to be normalised.
  // Given up as soon as a forward on the CPU no longer needs them.
  Inputs inputs;
  ForwardOptions options;
  // Asks for the gradients of all parameters that are not frozen when the
  // forward takes its state, whatever the options say.
  bool grads_of_trained = false;
  VersionCondition condition;
  // The buffers to run with, all of them, on the CPU. Empty: the instance's.
  std::vector<at::Tensor> buffers;
  bool return_buffers = false;
  bool l2_normalize = false;  // Divide each output's rows by their norm.
  bool allow_merge = false;   // May run in one batch with others.
  std::optional<at::ScalarType> output_dtype;  // Absent: as computed.
  // The inputs' name in the instance's feature cache, if the forward MayCache.
  // Empty: the answer is neither looked up nor kept.
  std::string input_digest = {};
  Budget::Reservation reservation;  // Pays for the inputs' upload.

  // With `options.record`: the tape's place and its session.
  TapeSlot slot;
  std::string session;
  // Pays for the forward's allocations: with `options.record` the tape's
  // account, which should have paid for the inputs too. Null: nobody pays.
  std::shared_ptr<MemoryAccount> account;
};

// The result of a forward. All tensors: CPU, contiguous.
struct ForwardDone {
  std::vector<at::Tensor> outputs;  // In the order asked for.
  std::vector<at::Tensor> buffers;  // After the forward, if asked for.
  StatePtr used;                    // The parameters' state.
  uint64_t buffers_version = 0;     // After the forward.
  std::string rng_state;            // After the forward, if one was given.
  std::string tape_id;              // If recorded.
  int64_t tape_bytes = 0;
  bool exact = true;  // It ran alone and whole, not merged or split.
  CacheUse cache_use = CacheUse::kNone;
  int64_t flops = 0;  // Its operations, without those of a backward.
  DeviceWorker::Times times;
};

// Returns whether a forward changes the instance: moves its buffers, or draws
// from its generator.
bool ChangesInstance(const ForwardWork& work);

// Takes the instance's present state, which must meet the forward's condition,
// and the settings with it.
absl::Status TakeState(ForwardWork& work, StatePtr& used);

// For the worker: returns the state that a forward runs with, which is `used`
// but for the buffers that the forward brings.
StatePtr StateToRun(const ForwardWork& work, const StatePtr& used);

// For the worker: brings inputs to the device and normalises them.
Inputs PrepareInputs(const Instance& instance, const State& state,
                     const Inputs& inputs);

// For the worker: returns a forward's outputs as asked for, on its device, or
// on the host.
std::vector<at::Tensor> FinishOutputs(const ForwardWork& work,
                                      std::vector<at::Tensor> outputs);
std::vector<at::Tensor> DeliverOutputs(const ForwardWork& work,
                                       std::vector<at::Tensor> outputs);

// The two halves of a forward, for the worker: computing it with its
// StateToRun, and making the state after `done.used`. A generator or buffers of
// the caller's go back into `done`; the instance's own go into that state.
ForwardOutput ComputeForward(ForwardWork& work, const State& state);
StatePtr NextState(const ForwardWork& work, ForwardOutput& output,
                   ForwardDone& done);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_FORWARD_RUN_H_
