// Decides which waiting work runs next, and what runs together.

#ifndef BACKBONED_SERVER_SCHEDULER_SCHEDULER_H_
#define BACKBONED_SERVER_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/scheduler/fair_share.h"

namespace backboned {

// A piece of work that waits for the device.
struct WorkItem {
  // The caller's name for it.
  uint64_t id = 0;
  // Who pays.
  FlowName flow = {};
  // Items of one lane run one after another. 0: no lane.
  uint64_t lane = 0;
  // From then on it is not worth running.
  absl::Time deadline = absl::InfiniteFuture();
  // Items of one key may run together. 0: alone. Not together with a lane.
  uint64_t merge_key = 0;
  // How much of a batch it is; what a batch costs is paid by samples.
  int64_t samples = 1;
  // It goes on with work that was admitted before: no limit refuses it.
  bool continues = false;
};

// How much may wait, how batches are made, and who gets how much.
struct SchedulerOptions {
  // Items that may wait.
  int64_t max_queued = std::numeric_limits<int64_t>::max();
  // Items that may wait of one flow.
  int64_t max_queued_by_flow = std::numeric_limits<int64_t>::max();
  // Items that may wait of a principal's flows together. One who is not named
  // may have as many as all.
  std::map<std::string, int64_t> max_queued_by_principal = {};
  // Samples that may run together. An item that has more runs alone.
  int64_t max_batch = 64;
  // How long an item may wait for others to run together with. 0: what waits
  // when the device is free runs together.
  absl::Duration max_delay = absl::ZeroDuration();
  // By principal, positive. One who is not named has weight 1.
  std::map<std::string, double> weights = {};
};

// Why a batch of work that may run together left when it did.
enum class BatchReason {
  kAlone,  // It may not run together with other work.
  kFull,   // It has as many samples as may be, or the next would not fit.
  kDelay,  // It waited as long as it may.
  kIncompatible,  // Other work waited, none that may run together with it.
  kDeviceIdle,    // The device was free, and nothing else waited.
};

// Shares the device's time between principals by their weights, and what a
// principal gets equally between its flows (FairShare). Within a flow first
// come first served. The items of a lane run one at a time and in their order:
// while one runs, the next ones wait and others go before them. Items of the
// same merge key run together, whoever pays.
//
// A pure object, without thread and clock: the caller says what time it is,
// with values that do not decrease, so that a test or a simulation drives it as
// the device's worker does. Each operation takes time logarithmic in the number
// of waiting items, and linear in the items that it names; Ahead looks at each
// flow.
//
// Not thread-safe.
class Scheduler {
 public:
  // What to do now.
  struct Dispatch {
    // Runs together until `Done`, which takes the first one's id. Empty:
    // nothing.
    std::vector<uint64_t> run;
    BatchReason reason = BatchReason::kAlone;
    // Were dropped at their deadline and never run.
    std::vector<uint64_t> expired;
    // If nothing runs now: when to ask again, if nothing happens before.
    absl::Time wake = absl::InfiniteFuture();
  };

  explicit Scheduler(SchedulerOptions options);

  // Takes `item` into the queue.
  //
  // Returns kResourceExhausted if as many items wait as may, in all, of its
  // principal or of its flow, that have not expired, unless it continues;
  // kAlreadyExists if one of this id waits or runs. It is not queued then.
  absl::Status Submit(WorkItem item, absl::Time now);

  // Returns what runs now, if anything may, and the items that have reached
  // their deadline by now. An item is named at most once, by one of the two.
  Dispatch Next(absl::Time now);

  // Takes an item out of the queue. Returns true if it was waiting, or expired
  // without having been reported: `Next` will never name it. False if it runs
  // or is unknown.
  bool Cancel(uint64_t id);

  // Says that item `id` of the batch that began with item `batch` does not run
  // after all: its flow pays nothing. Without effect if there is no such item.
  void Abandon(uint64_t batch, uint64_t id);

  // Says that the batch that began with item `id` has ended after `cost` of the
  // device's time, at least 0, which its flows pay for by samples: its lane is
  // free.
  // Without effect if no running batch began with `id`.
  void Done(uint64_t id, absl::Duration cost, absl::Time now);

  // Items that wait; one that expires counts until Submit or Next is called.
  int64_t queued() const { return static_cast<int64_t>(waiting_.size()); }

  // Items that wait of one flow, and of a principal's.
  int64_t queued(const FlowName& flow) const;
  int64_t queued_of(const std::string& principal) const;

  // Items that may wait of a principal's.
  int64_t max_queued_of(const std::string& principal) const;

  // How many of the items that wait now would run before one that `flow`
  // submitted now, if all took equally long, none ran together and none more
  // came.
  int64_t Ahead(const FlowName& flow) const;

  // Items that run.
  int64_t running() const { return static_cast<int64_t>(running_ids_.size()); }

  // How long all that waits will take, by what items took of late.
  absl::Duration Backlog() const { return mean_cost_ * queued(); }

  // What an item took of late.
  absl::Duration mean_cost() const { return mean_cost_; }

 private:
  // Counts submissions: the order of arrival.
  using Arrival = uint64_t;

  struct Waiting {
    WorkItem item;
    Arrival arrival;
    bool ready = false;
  };

  struct Lane {
    std::map<Arrival, uint64_t> waiting;  // By arrival, the item's id.
    bool busy = false;
  };

  // Items that may run together.
  struct Group {
    std::map<Arrival, uint64_t> waiting;  // By arrival, the item's id.
    int64_t samples = 0;
    absl::Time release;     // Until then it waits for more.
    bool released = false;  // Its items are ready.
  };

  struct Flow {
    std::map<Arrival, uint64_t> ready;  // By arrival, the item's id.
    int64_t waiting = 0;
  };

  // What runs together.
  struct Batch {
    std::vector<uint64_t> ids;
    uint64_t lane = 0;
    // By item: who pays, and for how many samples; none if it was abandoned.
    std::vector<std::pair<FlowName, int64_t>> shares;
  };

  absl::Status CheckLimits(const FlowName& flow) const;
  void Expire(absl::Time now);
  void Remove(uint64_t id);
  void RemoveFromLane(const Waiting& waiting);
  void RemoveFromGroup(const Waiting& waiting);
  void Offer(const Lane& lane);
  void Join(const Waiting& waiting, absl::Time now);
  void Release(uint64_t merge_key, Group& group);
  void ReleaseDue(absl::Time now);
  void MakeReady(uint64_t id);
  std::vector<uint64_t> Gather(uint64_t leader, BatchReason& reason) const;
  void Begin(const std::vector<uint64_t>& ids);

  const SchedulerOptions options_;
  Arrival next_arrival_ = 0;
  std::unordered_map<uint64_t, Waiting> waiting_;  // By id.
  std::set<std::pair<absl::Time, uint64_t>> by_deadline_;
  std::unordered_map<uint64_t, Lane> lanes_;    // Those that wait or are busy.
  std::unordered_map<uint64_t, Group> groups_;  // By merge key; none is empty.
  std::set<std::pair<absl::Time, uint64_t>> by_release_;  // Not released yet.
  std::map<FlowName, Flow> flows_;                        // Those that wait.
  std::map<std::string, int64_t> queued_by_principal_;    // Those that wait.
  FairShare fair_share_;
  std::unordered_map<uint64_t, Batch> running_;  // By its first item.
  std::unordered_set<uint64_t> running_ids_;
  std::vector<uint64_t> expired_;  // Not reported yet.
  absl::Duration mean_cost_ = absl::ZeroDuration();
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_SCHEDULER_SCHEDULER_H_
