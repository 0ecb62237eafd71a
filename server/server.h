// Owns a server's devices, instances, tapes and sessions, and their limits.

#ifndef BACKBONED_SERVER_SERVER_H_
#define BACKBONED_SERVER_SERVER_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/principals.h"
#include "base/task.h"
#include "server/callers/answer_log.h"
#include "server/callers/directory.h"
#include "server/callers/sessions.h"
#include "server/checkpoints/checkpoint_store.h"
#include "server/device/device_worker.h"
#include "server/instances/beginning.h"
#include "server/instances/instance.h"
#include "server/instances/registry.h"
#include "server/instances/waker.h"
#include "server/instances/weights_folder.h"
#include "server/limits/budget.h"
#include "server/limits/limits.h"
#include "server/limits/payer_accounts.h"
#include "server/tapes/tape_store.h"
#include "server/usage/usage_log.h"

namespace backboned {

// Freed memory that was unused for this time goes back to the system.
inline constexpr absl::Duration kMemoryRest = absl::Seconds(10);

struct ServerOptions {
  Limits limits = {};
  // Of each device. The limits of its queue are those of `limits`, its weights
  // `shares`.
  SchedulerOptions scheduling = {};
  // Weights, positive. A principal that is absent has 1.
  NumberByPrincipal shares = {};
  AnswerLog::Limits answers = {};
  // Of each GPU's memory, for CUDA graphs. 0: none; else GraphCache::Load was
  // called.
  int64_t graph_bytes = 0;
};

// The server without its wire. Independent of gRPC.
//
// Thread-safe.
class Server {
 public:
  // Starts a worker for each of `devices` (at least one; the first is the
  // default), one for chores, one for usage, and a sweeper for what expires.
  // All lifetimes and costs are measured with `clock`, which must outlive the
  // server. `checkpoints` is null if the server keeps nothing on its disk;
  // `usage` is null if it keeps that in memory.
  Server(const std::vector<c10::Device>& devices, int threads,
         const ServerOptions& options, WeightsFolder weights = {},
         const Clock& clock = MonotonicClock(),
         std::unique_ptr<CheckpointStore> checkpoints = nullptr,
         std::unique_ptr<UsageLog> usage = nullptr);
  ~Server();

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Makes an instance, however it begins. A failure leaves nothing behind:
  // kNotFound (unknown benchmark, architecture, column or weights),
  // kInvalidArgument (name, arguments, settings, device, generator state,
  // columns or weights that do not fit), kFailedPrecondition (no weights, or
  // corrupt ones, or a damaged checkpoint), kAborted (a source's version),
  // kAlreadyExists, kResourceExhausted.
  Task<absl::StatusOr<Created>> CreateInstance(const CreateOptions& options);

  // Notes that `instance` is used now, and gives it its State back if it
  // sleeps, for which its owner pays. Returns Waker's errors.
  Task<absl::Status> Wake(std::shared_ptr<Instance> instance,
                          DeviceWorker::Request caller);

  // Deletes an instance and its tapes; kNotFound if it was deleted before.
  absl::Status DeleteInstance(Instance& instance);

  // Drops tapes and answers that expired by `now`, a time of the clock, and all
  // that expired sessions own; gives memory that rested for kMemoryRest back to
  // the system. The sweeper calls this each second.
  void Sweep(absl::Time now);

  Directory& directory() { return directory_; }
  Registry& registry() { return registry_; }
  TapeStore& tapes() { return tapes_; }
  Sessions& sessions() { return sessions_; }
  AnswerLog& answers() { return answers_; }
  // Returns kFailedPrecondition (kNoStateFolder) if there are none.
  absl::StatusOr<CheckpointStore*> checkpoints() const;

  UsageLog& usage() { return *usage_; }
  Budget& in_flight() { return in_flight_; }
  PayerAccounts& accounts() { return accounts_; }
  const std::shared_ptr<Budget>& cache_room() const { return cache_room_; }
  const Limits& limits() const { return limits_; }
  const std::string& uid() const { return uid_; }
  absl::Time started() const { return started_; }  // The date.
  const Clock& clock() const { return clock_; }

  // All workers, the default one first.
  const std::vector<DeviceWorker*>& workers() const { return worker_order_; }

  // The worker for long work that needs no device, see RunChore. It has one
  // thread, so that it takes at most one core from the devices' workers.
  DeviceWorker& chores() { return *chores_; }

  // The worker for questions to usage(), which wait for its disk.
  DeviceWorker& usage_reader() { return *usage_reader_; }

  // Returns the worker of a device by name: `cpu`, `cuda`, `cuda:1`; empty: the
  // default; kLeastUsedDevice: that.
  absl::StatusOr<DeviceWorker*> FindWorker(std::string_view device) const;

 private:
  // Opens an instance's feature cache and adds the instance, unless
  // `check_wanted` fails; an ephemeral instance then belongs to its session.
  absl::Status Register(const std::shared_ptr<Instance>& instance,
                        const std::function<absl::Status()>& check_wanted);

  absl::StatusOr<DeviceWorker*> WorkerFor(const CreateOptions& options) const;
  DeviceWorker* LeastUsedWorker() const;
  UsageLog::BusyTimes BusyTimes() const;
  void SweepUntilEnd();
  void ReleaseRestingGpus();

  const Limits limits_;
  const WeightsFolder weights_;
  const std::unique_ptr<CheckpointStore> checkpoints_;
  const std::unique_ptr<UsageLog> usage_;
  std::optional<Waker> waker_;  // Absent: without checkpoints nobody sleeps.
  const std::string uid_;
  const absl::Time started_;
  const Clock& clock_;
  Directory directory_;
  Registry registry_;
  TapeStore tapes_;
  Sessions sessions_;
  AnswerLog answers_;
  Budget in_flight_;
  PayerAccounts accounts_;
  const std::shared_ptr<Budget> cache_room_;
  // Work that is left at the end may use all of the above.
  std::map<std::string, std::unique_ptr<DeviceWorker>>
      workers_;  // By device name.
  std::vector<DeviceWorker*> worker_order_;
  std::unique_ptr<DeviceWorker> chores_;
  std::unique_ptr<DeviceWorker> usage_reader_;

  absl::Mutex mutex_;
  MonotonicCondVar ended_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Duration gpus_busy_ ABSL_GUARDED_BY(mutex_);  // At the last look.
  absl::Time trimmed_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::thread sweeper_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_SERVER_H_
