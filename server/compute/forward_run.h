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
  // On the CPU: of a floating-point type, or uint8 images to normalise.
  at::Tensor input;
  ForwardOptions options;
  // Parameters get gradients that are not frozen when it takes its state,
  // whatever the options say.
  bool grads_of_trained = false;
  VersionCondition condition;
  // To run with in place of the instance's, all of them, on the CPU. Empty: the
  // instance's.
  std::vector<at::Tensor> buffers;
  bool return_buffers = false;
  bool l2_normalize = false;  // Divide each output's rows by their norm.
  bool allow_merge = false;   // It may run in one batch with others.
  std::optional<at::ScalarType> output_dtype;  // Absent: as computed.
  // Of a forward that MayCache: names the input in the instance's feature
  // cache. Empty: it is not looked up, nor kept.
  std::string input_digest = {};
  Budget::Reservation reservation;  // Pays for the input's upload.

  // With `options.record`: the tape's place and its session.
  TapeSlot slot;
  std::string session;
  // Pays for what the forward allocates: with `options.record` the tape's, in
  // which the input should have been allocated too. Null: nobody.
  std::shared_ptr<MemoryAccount> account;
};

// What a forward gave. All tensors: CPU, contiguous.
struct ForwardDone {
  std::vector<at::Tensor> outputs;  // In the order asked for.
  std::vector<at::Tensor> buffers;  // After the forward, if asked for.
  StatePtr used;                    // Its parameters were used.
  uint64_t buffers_version = 0;     // After the forward.
  std::string rng_state;            // After the forward, if one was given.
  std::string tape_id;              // If recorded.
  int64_t tape_bytes = 0;
  bool exact = true;  // It ran alone and whole, not merged or split.
  CacheUse cache_use = CacheUse::kNone;
  DeviceWorker::Times times;
};

// Whether a forward changes the instance: moves its buffers, or draws from its
// generator.
bool ChangesInstance(const ForwardWork& work);

// Takes the state that the instance has now, which must be of the forward's
// condition, and the settings with it.
absl::Status TakeState(ForwardWork& work, StatePtr& used);

// A forward that was computed.
struct ComputedForward {
  ForwardOutput output;
  StatePtr state;    // It ran with.
  at::Tensor input;  // As it came, if recorded.
};

// For the worker: the network's input of some rows of `work.input`.
at::Tensor PrepareRows(const ForwardWork& work, const State& state,
                       const at::Tensor& rows);

// For the worker: brings what a forward gave to the host, as it was asked for.
void DeliverOutputs(const ForwardWork& work, ForwardOutput& output,
                    ForwardDone& done);

// The two halves of a forward, for the worker: it is computed, and the state
// that it leaves is made. A generator or buffers that the caller gave go back
// into `done`, the instance's own move on. Without `done.used`, in the
// instance's lane, it is set to the state that is found, which must be of
// `work.condition`.
absl::StatusOr<ComputedForward> ComputeForward(ForwardWork& work,
                                               ForwardDone& done);
StatePtr NextState(const ForwardWork& work, ForwardOutput& output,
                   ForwardDone& done);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_FORWARD_RUN_H_
