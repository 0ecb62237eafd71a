// Forwards and backwards of instances: from host tensors to host tensors.

#ifndef BACKBONED_SERVER_COMPUTE_FORWARD_H_
#define BACKBONED_SERVER_COMPUTE_FORWARD_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backbones/forward.h"
#include "backbones/optimizer.h"
#include "server/device/device_worker.h"
#include "server/host.h"
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

// What an instance's feature cache has to do with an answer.
enum class CacheUse {
  kNone,
  kHit,       // It is the cache's.
  kKept,      // It was computed, and is kept.
  kTooLarge,  // It was computed, and alone takes more than the cache may.
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

// Runs a forward: with the state that the instance has now, or, if it changes
// the instance or is in training with the instance's buffers, in the instance's
// lane, with the state that it has then; there it publishes the moved buffers
// and generator. Nothing is kept or published if it fails.
//
// One with an input digest whose answer the instance's feature cache has takes
// no time of the device; otherwise its answer is kept there.
absl::StatusOr<ForwardDone> RunForward(Host& host,
                                       DeviceWorker::Request request,
                                       ForwardWork work);

// Returns the bytes that a row of the first output of `work` has, as it is
// computed: from a forward of the first row, which the instance remembers. The
// input has at least one.
absl::StatusOr<int64_t> RowBytes(const DeviceWorker::Request& request,
                                 const ForwardWork& work);

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

// One backward to run.
struct BackwardWork {
  std::shared_ptr<Instance> instance;
  TapeLease lease;
  // For each tape of the lease, by its outputs: of a floating-point type, CPU;
  // undefined: none.
  std::vector<std::vector<at::Tensor>> output_grads;
  bool retain = false;
  bool accumulate = false;
  bool zero_before = false;  // With `accumulate`.
  bool input_grad = false;
  bool return_grads = false;
  bool per_tape_grads = false;
  bool squared_grads = false;
  std::optional<StepOptions> step = {};        // With `accumulate`.
  std::optional<at::ScalarType> output_dtype;  // Absent: as computed.
  Budget::Reservation reservation;  // Pays for the gradients' upload.
};

// What a backward gave. All tensors: CPU, contiguous; undefined: none.
struct BackwardDone {
  std::vector<at::Tensor> grads;        // One a parameter, if asked for.
  std::vector<at::Tensor> input_grads;  // One a tape, if asked for.
  // One a tape, by parameter, if asked for.
  std::vector<std::vector<at::Tensor>> tape_grads;
  std::vector<at::Tensor> squared_grads;  // One a parameter, if asked for.
  std::optional<StepOutput> step;         // If there was one.
  StatePtr state;                         // The instance's afterwards.
  DeviceWorker::Times times;
};

// Runs a backward, in the instance's lane if it accumulates, and publishes
// gradients and step as one State. The tapes are used up once it began, unless
// it ended well and `retain` is set; before, they go back. After a failure
// nothing else has changed.
absl::StatusOr<BackwardDone> RunBackward(DeviceWorker::Request request,
                                         BackwardWork work);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_FORWARD_H_
