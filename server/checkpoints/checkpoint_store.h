// Keeps checkpoints in the server's state folder.

#ifndef BACKBONED_SERVER_CHECKPOINTS_CHECKPOINT_STORE_H_
#define BACKBONED_SERVER_CHECKPOINTS_CHECKPOINT_STORE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "backboned/v1/record.pb.h"
#include "base/clock.h"
#include "base/task.h"
#include "server/checkpoints/saved_state.h"
#include "server/checkpoints/state_folder.h"
#include "server/device/device_worker.h"
#include "server/limits/budget.h"
#include "server/limits/quotas.h"

namespace backboned {

// All checkpoints: those that people name, and one of each living instance by
// which the server finds it again after a restart (`recovery`).
//
// Files are written and read by a worker of its own, in turns of one file, so
// that no disk holds up what needs none. Thread-safe.
class CheckpointStore {
 public:
  struct Options {
    int64_t max_bytes = 0;  // Of those that people name. 0: not limited.
    Quotas quotas = {};
  };

  // Opens the folder at `path`, and reads its records. `clock` must outlive the
  // store. Returns the errors of StateFolder.
  static absl::StatusOr<std::unique_ptr<CheckpointStore>> Open(
      const std::string& path, const Options& options,
      const Clock& clock = MonotonicClock());

  // Saves `tensors`, contiguous ones on the CPU, and `record`, to which it adds
  // format, number, time, files and bytes. Of the checkpoints of this owner and
  // name the newest `keep` stay. Once it ends, the checkpoint would survive a
  // power cut; after a failure nothing is there. `check_wanted` is asked at the
  // very end: its error is a failure. Empty: it is wanted.
  //
  // Returns kResourceExhausted (kLimitReached) if the owner has no room,
  // StateFolder's errors, and those of DeviceWorker::Run.
  Task<absl::StatusOr<v1::Checkpoint>> Save(
      const DeviceWorker::Request& request, v1::Record record,
      std::vector<SavedTensor> tensors, int keep,
      const std::function<absl::Status()>& check_wanted = {});

  // A checkpoint; its files are there as long as somebody has `hold`, whoever
  // deletes it.
  struct Found {
    v1::Record record;
    std::shared_ptr<const void> hold;
  };

  // Finds a checkpoint that somebody named; number 0: the newest of the name.
  // Returns kNotFound (kCheckpointNotFound), which suggests names of the owner.
  absl::StatusOr<Found> Find(std::string_view owner, std::string_view name,
                             int64_t number);

  // Finds the record of a living instance. Returns kFailedPrecondition
  // (kCheckpointUnreadable) if there is none.
  absl::StatusOr<Found> FindLiving(std::string_view uid);

  // Lets `living`, which FindLiving found, describe the instance as it is now,
  // with the same tensors, unless `check_wanted` fails at the very end. Returns
  // that error, StateFolder's, and those of DeviceWorker::Run.
  Task<absl::Status> Rewrite(const DeviceWorker::Request& request,
                             const Found& living, const v1::Instance& now,
                             const std::function<absl::Status()>& check_wanted);

  // Deletes them; number 0: all of the name. They would not be back after a
  // power cut. Returns Find's error, StateFolder's and DeviceWorker::Run's.
  Task<absl::Status> Delete(const DeviceWorker::Request& request,
                            std::string_view owner, std::string_view name,
                            int64_t number);

  // Returns those that people named, by owner, name and number; with an owner,
  // that one's.
  std::vector<v1::Checkpoint> List(
      const std::optional<std::string>& owner) const;

  // The number of those that people named.
  int64_t count() const;

  // The number of times that Save or Rewrite saved, and that the disk refused
  // it (kStorageFailed).
  int64_t saves() const { return saves_; }
  int64_t refused_saves() const { return refused_saves_; }

  // Returns the newest record of each instance that outlives the server, or
  // deletes those of one; what is not there is deleted already. Once it ends,
  // no Save that asks whether the instance lives can bring it back.
  std::vector<v1::Record> Living() const;
  Task<absl::Status> DeleteLiving(const DeviceWorker::Request& request,
                                  std::string_view uid);

  // Deletes what people saved before `time`.
  absl::Status DropOlderThan(absl::Time time);

  // The worker of its files, for StateReader.
  DeviceWorker& disk() { return disk_; }
  StateFolder& folder() { return *folder_; }

  // The bytes of what people named, by payer.
  const Budget& room() const { return room_; }

 private:
  struct Entry {
    v1::Record record;
    std::string file;  // The record's.
    Budget::Reservation room;
  };
  using Entries = std::map<int64_t, Entry>;  // By number.
  class Saving;

  CheckpointStore(std::unique_ptr<StateFolder> folder, const Options& options,
                  const Clock& clock);

  // Reads all, and deletes those of instances that died with the last server.
  absl::Status ReadRecords();

  // Hold a blob, from before it is written until Release removes the last hold,
  // and with it the blob; or those of a record.
  void Hold(const std::string& sha256);
  Found HoldFilesOf(const v1::Record& record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Release(const v1::Record& record) ABSL_LOCKS_EXCLUDED(mutex_);

  // Publishes a record whose blobs are written and held.
  absl::StatusOr<v1::Checkpoint> Publish(v1::Record record,
                                         Budget::Reservation room, int keep);

  void CountSave(const absl::Status& ended);

  // Notes the highest number that was given. Remove does so before it removes
  // the record by which the next server would know it, since a number names one
  // checkpoint for ever; on a full disk, after it.
  absl::Status NoteNumber();

  // Removes all entries that are meant, at once, or on the disk's worker.
  using IsMeant = std::function<bool(const Entry&)>;
  absl::Status Remove(const IsMeant& is_meant);
  Task<absl::Status> RemoveOnDisk(const DeviceWorker::Request& request,
                                  const IsMeant& is_meant);

  const std::unique_ptr<StateFolder> folder_;
  Budget room_;
  std::atomic<int64_t> saves_ = 0;
  std::atomic<int64_t> refused_saves_ = 0;
  absl::Mutex note_mutex_;  // Of NoteNumber, which two threads call.
  mutable absl::Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  int64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, int64_t> holds_ ABSL_GUARDED_BY(mutex_);
  DeviceWorker disk_;  // Last: its work uses all of the above.
};

// Returns the files of a record, for StateReader.
std::vector<StateReader::File> FilesOf(const v1::Record& record);

}  // namespace backboned

#endif  // BACKBONED_SERVER_CHECKPOINTS_CHECKPOINT_STORE_H_
