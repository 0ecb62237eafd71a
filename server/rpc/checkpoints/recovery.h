// Lets instances outlive the server, and sleep.

#ifndef BACKBONED_SERVER_RPC_CHECKPOINTS_RECOVERY_H_
#define BACKBONED_SERVER_RPC_CHECKPOINTS_RECOVERY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "backboned/v1/record.pb.h"
#include "backbones/state.h"
#include "base/clock.h"
#include "server/checkpoints/checkpoint_store.h"
#include "server/instances/instance.h"
#include "server/instances/settings.h"
#include "server/server.h"

namespace backboned::rpc {

// Saves the named instances of a server in its folder, and brings them back at
// the next start, with their uids. Their versions are those that were saved if
// the last server ended with SaveAll. Else it may have given higher ones, which
// are lost: they come back in versions above all of those, so that no number
// means two states.
//
// An instance is saved when it has changed since: soon after it was made, after
// an interval, after a number of versions of its parameters, and by SaveAll.
// One without a name, which dies with its session, is saved only to sleep.
//
// An instance that nobody used for a time sleeps: its memory is given back, and
// its next call reads it from the disk. All that come back sleep at first.
class Recovery {
 public:
  struct Options {
    absl::Duration interval = absl::Minutes(1);
    int64_t versions = 0;  // 0: however many.
    // Of instances, which sleep then.
    absl::Duration idle_ttl = absl::InfiniteDuration();
    // Of checkpoints, which are deleted then.
    absl::Duration checkpoint_ttl = absl::InfiniteDuration();
  };

  // `server` and `store`, which is the server's, must outlive this object.
  Recovery(Server& server, CheckpointStore& store, const Options& options);
  ~Recovery();

  Recovery(const Recovery&) = delete;
  Recovery& operator=(const Recovery&) = delete;

  // Brings all back, asleep. The log names those that cannot be, which stay on
  // the disk. Call this once, before Start.
  void Restore();

  // Begins to save, to let instances sleep, and to delete old checkpoints, on a
  // thread of its own. Call this once clients are served: until then the folder
  // has all that there is.
  void Start();

  // Goes on with other options. Thread-safe.
  void SetOptions(const Options& options);

  // Ends that, and saves all that changed since. Returns kInternal
  // (kStorageFailed) if something could not be; the log says what. Call this
  // once, after the last call of a client has ended.
  absl::Status SaveAll();

 private:
  // An instance at the last time that it was saved, or could not be.
  struct Saved {
    Settings settings;
    uint64_t params_version = 0;
    absl::Time time;  // Of the server's clock.
    bool failed = false;
  };

  absl::Status RestoreOne(const v1::Record& record);
  void Run();
  void End();
  // Saves what is due, or `all` that changed; returns false if one could not
  // be.
  bool SaveDue(bool all);
  bool IsOnDisk(const Instance& instance, const StatePtr& state) const;
  bool IsDue(const Instance& instance, const StatePtr& state, bool all) const;
  bool Save(const std::shared_ptr<Instance>& instance, const StatePtr& state);
  absl::Status Write(const std::shared_ptr<Instance>& instance,
                     const StatePtr& state);

  // Lets the instance sleep if nobody used it for long.
  void LetSleep(const std::shared_ptr<Instance>& instance,
                const StatePtr& state);

  // Forgets an instance that is gone, and deletes what the disk has of it.
  void Forget(const std::string& uid);

  Server& server_;
  CheckpointStore& store_;
  bool began_ = false;
  bool all_came_back_ = true;
  Options options_;
  // By uid. The thread's between Start and SaveAll.
  std::map<std::string, Saved> saved_;

  absl::Mutex mutex_;
  MonotonicCondVar ended_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  Options next_options_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CHECKPOINTS_RECOVERY_H_
