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
#include "base/task.h"
#include "server/callers/rights.h"
#include "server/device/device_worker.h"
#include "server/device/precision.h"
#include "server/instances/feature_cache.h"
#include "server/instances/settings.h"

namespace backboned {

// A condition on an instance's version; only the fields that are set count.
struct VersionCondition {
  std::string uid;
  std::optional<uint64_t> params;
  std::optional<uint64_t> buffers;
};

// The normalisation of uint8 images: `x / 255`, then `(x - mean) / std` by
// channel. Both empty: only `x / 255`.
struct Normalization {
  std::vector<double> mean;
  std::vector<double> std;

  bool operator==(const Normalization&) const = default;
};

// The numbers of a State: each change of its parameters, and of its buffers,
// raises one.
struct StateVersion {
  uint64_t params = 1;
  uint64_t buffers = 1;

  bool operator==(const StateVersion&) const = default;
};

// The marks that a crash of the server left on an instance that came back.
struct Rollback {
  // Under which the State that came back was saved, the newest last: several if
  // it did not change between crashes. Those after them are lost.
  std::vector<StateVersion> saved;
  StateVersion raised;  // Under which it came back.
};

// A named backbone: an immutable architecture and a pointer to its current
// State.
//
// The holder of a State keeps that version, whatever is published meanwhile.
// States are published only from the instance's lane, one after another.
//
// Thread-safe.
class Instance {
 public:
  // The properties that never change.
  struct Identity {
    std::string uid = {};  // Empty: a random one.
    std::string name;
    std::string owner;
    std::string session;    // Of the call that made it. Empty: none.
    std::string benchmark;  // Empty: made from an architecture.
    Normalization normalization;
    std::string weights;                    // Initial ones. Empty: none.
    std::string weights_sha256;             // Of the weights' file.
    std::vector<std::string> columns = {};  // Earlier ones, by full name.
    std::vector<std::string> column_uids = {};
    Precision precision = Precision::kDefault;
    bool ephemeral = false;  // Dies with its session.
    std::optional<Rollback> rollback = {};
    absl::Time created;
  };

  // Counts of events, for the instance's description.
  struct Counters {
    std::atomic<int64_t> forwards = 0;
    std::atomic<int64_t> backwards = 0;
    std::atomic<int64_t> writes = 0;
    std::atomic<int64_t> steps = 0;
    std::atomic<int64_t> demoted_tapes = 0;
    std::atomic<int64_t> replayed_forwards = 0;
  };

  // `worker` must outlive the instance; `initial` is on the worker's device, or
  // IsMeta; the patterns of `settings` match. The feature cache is off until
  // OpenCache.
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

  // The answers to forwards in the current version.
  FeatureCache& cache() { return cache_; }

  // 128 random bits as hexadecimal digits. A later instance may have the same
  // name, but not the same uid.
  const std::string& uid() const { return uid_; }

  // The instance's lane at the device's worker.
  uint64_t lane() const { return lane_; }

  // `owner/name`.
  std::string FullName() const;

  // The current state.
  StatePtr state() const;

  // The time of the last use, by the clock of the server.
  void Touch(absl::Time now) { used_ns_ = absl::ToUnixNanos(now); }
  absl::Time last_used() const { return absl::FromUnixNanos(used_ns_); }

  // Returns whether its State has no memory.
  bool is_asleep() const;

  // Notes, or tells, that the disk has this state.
  void MarkSaved(const StatePtr& state);
  bool IsSaved(const StatePtr& state) const;

  // Notes that the disk's file of the State that sleeps could not be read, or
  // that it could; returns whether that is new.
  bool NoteReadable(bool readable) {
    return readable_.exchange(readable) != readable;
  }
  bool readable() const { return readable_; }

  // Puts a State without memory (IsMeta) in the place of `state`, if that is
  // the current one, and the disk has it. The instance then sleeps. Returns
  // false if it does not.
  bool Sleep(const StatePtr& state);

  // Puts `state`, which the disk has, in the place of `asleep`, if that is the
  // current one. Throws as Publish does. Call this only from work in the
  // instance's lane.
  void Awake(const StatePtr& asleep, StatePtr state);

  // The newest version that would come back after a restart of the server,
  // which is that of its first State if it came back itself. Absent: none.
  std::optional<StateVersion> saved() const;
  void NoteSaved(const State& state);

  // All that rights to it depend on.
  Ownership ownership() const;

  // The settings in force, and whether they let each parameter be trained.
  Settings settings() const;
  std::vector<bool> trained() const;

  // Lets `change` change the settings, in the lane: earlier work runs under the
  // old ones. Nothing changes if the condition no longer holds, a pattern
  // matches no parameter (kInvalidArgument), or CacheFits or the room for
  // caches returns an error.
  Task<absl::Status> ChangeSettings(
      DeviceWorker::Request request, VersionCondition condition,
      const std::function<void(Settings&)>& change);

  // Returns the bytes that RememberRowBytes was recently given for `question`.
  std::optional<int64_t> RowBytes(const std::string& question) const;
  void RememberRowBytes(const std::string& question, int64_t bytes);

  // Gives a new instance the feature cache of its settings, or returns the
  // error of CacheFits or of the room for caches.
  absl::Status OpenCache();

  // Returns kAborted, with both versions, if `state` does not meet `condition`.
  absl::Status CheckVersion(const VersionCondition& condition,
                            const State& state) const;

  // Makes the next state from the current one, in the lane, and publishes it.
  // `make` runs on the worker's thread. Nothing changes if it fails, or if by
  // then the condition does not hold or CheckWritable fails.
  Task<absl::StatusOr<StatePtr>> Commit(
      DeviceWorker::Request request, VersionCondition condition,
      const std::function<absl::StatusOr<StatePtr>(const State&)>& make);

  // Ends the instance, which the registry no longer has. Later writes fail;
  // reads and forwards that hold it finish. Turns the feature cache off.
  void MarkDeleted();
  bool deleted() const { return deleted_; }

  // Returns kNotFound if the instance is deleted: a write would be lost.
  absl::Status CheckAlive() const;

  // Returns the error of CheckAlive, or kFailedPrecondition (kReadOnly) if the
  // instance is read-only.
  absl::Status CheckWritable() const;

  // Returns kFailedPrecondition (kReadOnly) if the instance's dtype allows only
  // evaluation: float16 or bfloat16.
  absl::Status CheckTrains() const;

  // Charges this thread's account with the memory of a new state, which is on
  // the instance's device, if that is a GPU. Publish does so, too. Throws
  // OutOfMemoryBudget if there is no room.
  void CountOnGpu(const State& state) const;

  // Publishes a state once the device has computed it, and drops cached answers
  // of other versions of parameters or buffers. Call this only from work in the
  // instance's lane. Throws c10::Error if the device has failed, and
  // OutOfMemoryBudget if the caller has no room for the state on the GPU.
  void Publish(StatePtr next);

  // Returns `tensors` as contiguous CPU tensors of `dtype`; absent: of their
  // own dtype. Tensors of that form are returned as they are; the worker, or
  // its copies, copies the others. Undefined ones stay undefined.
  Task<absl::StatusOr<std::vector<at::Tensor>>> HostView(
      DeviceWorker::Request request, std::vector<at::Tensor> tensors,
      std::optional<at::ScalarType> dtype = {}) const;

  // Returns the SHA-256 of the flat parameters, then the buffers, then the
  // tensors shared with earlier columns, of `state`: a chore, remembered for
  // the last state asked for. Concurrent callers for the same state take turns
  // with one computation, which goes on while one of them waits.
  Task<absl::StatusOr<std::string>> Digest(DeviceWorker& chores,
                                           DeviceWorker::Request request,
                                           StatePtr state);

 private:
  struct Digesting;

  // Returns the present computation of the digest of `state`, or a new one.
  std::shared_ptr<Digesting> DigestingOf(const StatePtr& state)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Returns kInvalidArgument (kInvalidOption) if a feature cache of `bytes` is
  // on but cannot keep the logits of one sample.
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
  std::atomic<bool> readable_ = true;
  std::atomic<int64_t> used_ns_ = 0;

  mutable absl::Mutex mutex_;
  StatePtr state_ ABSL_GUARDED_BY(mutex_);
  std::weak_ptr<const State> saved_ ABSL_GUARDED_BY(mutex_);
  std::optional<StateVersion> saved_version_ ABSL_GUARDED_BY(mutex_);
  Settings settings_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> trained_ ABSL_GUARDED_BY(mutex_);
  std::pair<std::weak_ptr<const State>, std::string> digest_
      ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int64_t> row_bytes_ ABSL_GUARDED_BY(mutex_);
  std::weak_ptr<Digesting> digesting_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_INSTANCE_H_
