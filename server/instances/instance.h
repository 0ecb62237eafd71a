// A named backbone on a device.

#ifndef BACKBONED_SERVER_INSTANCES_INSTANCE_H_
#define BACKBONED_SERVER_INSTANCES_INSTANCE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "backbones/architecture.h"
#include "backbones/state.h"
#include "server/device/device_worker.h"
#include "server/instances/feature_cache.h"
#include "server/instances/settings.h"

namespace backboned {

// A condition on the version that a call finds; only what is set is compared.
struct VersionCondition {
  std::string uid;
  std::optional<uint64_t> params;
  std::optional<uint64_t> buffers;
};

// How uint8 images become input: `x / 255`, then `(x - mean) / std` by channel.
// Both empty: only `x / 255`.
struct Normalization {
  std::vector<double> mean;
  std::vector<double> std;

  bool operator==(const Normalization&) const = default;
};

// A named backbone: an immutable architecture and a pointer to its current
// State.
//
// Whoever holds a State keeps that version, whatever is published meanwhile.
// States are published only from the instance's lane, one after another.
//
// Thread-safe.
class Instance {
 public:
  // What never changes.
  struct Identity {
    std::string name;
    std::string owner;
    std::string session;    // Of the call that made it. Empty: none.
    std::string benchmark;  // Empty: made from an architecture.
    Normalization normalization;
    std::string weights;                    // It began with. Empty: none.
    std::string weights_sha256;             // Of their file.
    std::vector<std::string> columns = {};  // Earlier ones, by full name.
    std::vector<std::string> column_uids = {};
    bool ephemeral = false;  // Dies with its session.
    absl::Time created;
  };

  // What it did, for its description.
  struct Counters {
    std::atomic<int64_t> forwards = 0;
    std::atomic<int64_t> backwards = 0;
    std::atomic<int64_t> writes = 0;
    std::atomic<int64_t> steps = 0;
    std::atomic<int64_t> demoted_tapes = 0;
    std::atomic<int64_t> replayed_forwards = 0;
  };

  // `worker` must outlive it; `initial` lives on the worker's device; the
  // patterns of `settings` match. Its feature cache is off until OpenCache.
  Instance(Identity identity, std::shared_ptr<const Architecture> architecture,
           DeviceWorker& worker, StatePtr initial, Settings settings = {},
           std::shared_ptr<Budget> cache_room = nullptr);

  const Identity& identity() const { return identity_; }
  const Architecture& architecture() const { return *architecture_; }
  const std::shared_ptr<const Architecture>& shared_architecture() const {
    return architecture_;
  }
  DeviceWorker& worker() const { return worker_; }
  Counters& counters() { return counters_; }

  // What its forwards were answered, in the current version.
  FeatureCache& cache() { return cache_; }

  // 128 random bits as hexadecimal digits: a name may be made again, a uid is
  // not.
  const std::string& uid() const { return uid_; }

  // Its lane at the device's worker.
  uint64_t lane() const { return lane_; }

  // `owner/name`.
  std::string FullName() const;

  // The current state.
  StatePtr state() const;

  // The settings in force, and for each parameter whether they let it be
  // trained.
  Settings settings() const;
  std::vector<bool> trained() const;

  // Lets `change` change the settings, in the lane: what came before it was
  // done under the old ones. Nothing changes if the condition does not hold by
  // then, a pattern matches no parameter (kInvalidArgument), or CacheFits' or
  // the error of the room for caches says no.
  absl::Status ChangeSettings(const DeviceWorker::Request& request,
                              const VersionCondition& condition,
                              const std::function<void(Settings&)>& change);

  // Returns what RememberRowBytes was told of `question`, if that was lately.
  std::optional<int64_t> RowBytes(const std::string& question) const;
  void RememberRowBytes(const std::string& question, int64_t bytes);

  // Gives a new instance the feature cache of its settings, or returns
  // CacheFits' error, or that of the room for caches.
  absl::Status OpenCache();

  // Returns kAborted, with both versions, if `condition` does not hold for
  // `state`.
  absl::Status CheckVersion(const VersionCondition& condition,
                            const State& state) const;

  // Makes the next state from the current one, in the lane, and publishes it.
  // `make` runs on the worker's thread. Nothing changes if it fails, or if by
  // then the condition does not hold or CheckWritable fails.
  absl::StatusOr<StatePtr> Commit(
      const DeviceWorker::Request& request, const VersionCondition& condition,
      const std::function<absl::StatusOr<StatePtr>(const State&)>& make);

  // Says that the registry no longer has it. Writes fail from then on; reads
  // and forwards that hold it finish. Its feature cache is gone.
  void MarkDeleted();
  bool deleted() const { return deleted_; }

  // Returns kNotFound once it is deleted: what is written then would be lost.
  absl::Status CheckAlive() const;

  // Returns CheckAlive's error, or kFailedPrecondition (kReadOnly) if the
  // settings let nobody write.
  absl::Status CheckWritable() const;

  // Returns kFailedPrecondition (kReadOnly) if its dtype runs in evaluation
  // only: float16 or bfloat16.
  absl::Status CheckTrains() const;

  // Publishes a state. Only from work in the instance's lane. What is cached of
  // another version of parameters or buffers goes.
  void Publish(StatePtr next);

  // Returns `tensors` as contiguous CPU tensors of `dtype`; absent: of their
  // own. The same ones where they are that already, copies made by the worker
  // otherwise. Undefined ones stay undefined.
  absl::StatusOr<std::vector<at::Tensor>> HostView(
      const DeviceWorker::Request& request, std::vector<at::Tensor> tensors,
      std::optional<at::ScalarType> dtype = {}) const;

  // SHA-256 of the flat parameters, then the buffers, then what is shared with
  // earlier columns, of `state`: a chore, remembered for the last state asked
  // for. Those who ask for the same one at the same time take turns with one
  // computation, which goes on while one of them waits.
  absl::StatusOr<std::string> Digest(DeviceWorker& chores,
                                     DeviceWorker::Request request,
                                     const StatePtr& state);

 private:
  struct Digesting;

  // The computation of the digest of `state` that is under way, or a new one.
  std::shared_ptr<Digesting> DigestingOf(const StatePtr& state)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Returns kInvalidArgument (kInvalidOption) if a feature cache of `bytes`
  // could not keep the logits of one sample, unless it is off.
  absl::Status CacheFits(int64_t bytes) const;

  const Identity identity_;
  const std::shared_ptr<const Architecture> architecture_;
  DeviceWorker& worker_;
  const std::string uid_;
  const uint64_t lane_;
  const uint64_t digest_lane_;
  Counters counters_;
  FeatureCache cache_;
  std::atomic<bool> deleted_ = false;

  mutable absl::Mutex mutex_;
  StatePtr state_ ABSL_GUARDED_BY(mutex_);
  Settings settings_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> trained_ ABSL_GUARDED_BY(mutex_);
  std::pair<std::weak_ptr<const State>, std::string> digest_
      ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int64_t> row_bytes_ ABSL_GUARDED_BY(mutex_);
  std::weak_ptr<Digesting> digesting_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_INSTANCE_H_
