// Decides which waiting work runs next, and which work runs together.

#ifndef BACKBONED_SERVER_SCHEDULER_SCHEDULER_H_
#define BACKBONED_SERVER_SCHEDULER_SCHEDULER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
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
  // Chosen by the caller.
  uint64_t id = 0;
  // Pays for the item.
  FlowName flow = {};
  // Items of one lane run one after another. 0: no lane.
  uint64_t lane = 0;
  // The item is not worth running from then on.
  absl::Time deadline = absl::InfiniteFuture();
  // Items of equal keys may run together. 0: runs alone. Not allowed in a lane.
  uint64_t merge_key = 0;
  // The item's part of a batch, whose cost is divided by samples.
  int64_t samples = 1;
  // The item goes on with admitted work: no limit refuses it.
  bool continues = false;
};

// Limits of the queue, rules of batches, and weights.
struct SchedulerOptions {
  // The most items that may wait.
  int64_t max_queued = std::numeric_limits<int64_t>::max();
  // The most items that may wait of one flow.
  int64_t max_queued_by_flow = std::numeric_limits<int64_t>::max();
  // Returns the most items that may wait of a principal's flows together. Null:
  // as many as of all.
  std::function<int64_t(const std::string& principal)> max_queued_of = nullptr;
  // The most samples that may run together. An item with more runs alone.
  int64_t max_batch = 64;
  // The longest wait of an item for others to run with. 0: the items that wait
  // when the device is free run together.
  absl::Duration max_delay = absl::ZeroDuration();
  // Returns a principal's weight, which is positive. Null: all have 1.
  FairShare::WeightOf weight_of = nullptr;
};

// The reason why a batch of work with a merge key left the queue.
enum class BatchReason {
  kAlone,  // The item may not run together with others.
  kFull,   // The batch has the most samples, or the next item would not fit.
  kDelay,  // The first item's wait reached the limit.
  kIncompatible,  // Other work waited, but of other merge keys.
  kDeviceIdle,    // The device was free, and nothing else waited.
};

// Shares the device's time between principals by their weights, and each one's
// equally between its flows (FairShare). Within a flow the first to come is
// served first. The items of a lane run one at a time and in their order: while
// one runs, the next ones wait and other items go before them. Items of the
// same merge key run together, whoever pays.
//
// A pure object, without thread and clock: the caller passes times, which do
// not decrease, so that a test or a simulation drives it as the device's worker
// does. Each operation takes time logarithmic in the number of waiting items,
// and linear in the number of items that it names; Ahead visits each flow.
//
// Not thread-safe.
class Scheduler {
 public:
  // The next action.
  struct Dispatch {
    // Items that run together until `Done`, which takes the first one's id.
    // Empty: none run.
    std::vector<uint64_t> run;
    BatchReason reason = BatchReason::kAlone;
    // Items dropped at their deadline, which never run.
    std::vector<uint64_t> expired;
    // If `run` is empty: when to call Next again, if nothing happens before.
    absl::Time wake = absl::InfiniteFuture();
  };

  explicit Scheduler(SchedulerOptions options);

  // Takes `item` into the queue.
  //
  // Returns kResourceExhausted if waiting items that have not expired reach the
  // limit of all, of its principal or of its flow, unless the item continues;
  // kAlreadyExists if an item of this id waits or runs. Queues nothing then.
  absl::Status Submit(WorkItem item, absl::Time now);

  // Returns the items to run now, if any may, and the items that have reached
  // their deadline. Each item is named at most once, by one of the two.
  Dispatch Next(absl::Time now);

  // Takes an item out of the queue. Returns true if it was waiting, or expired
  // without having been reported: `Next` will never name it. Returns false if
  // it runs or is unknown.
  bool Cancel(uint64_t id);

  // Notes that item `id` of the batch that began with item `batch` does not
  // run: its flow pays nothing. Does nothing if there is no such item.
  void Abandon(uint64_t batch, uint64_t id);

  // Notes that the batch that began with item `id` has ended after `cost` of
  // the device's time, at least 0, for which its flows pay by samples: its lane
  // is free. Does nothing if no running batch began with `id`.
  void Done(uint64_t id, absl::Duration cost, absl::Time now);

  // The number of waiting items; expired ones count until Submit or Next.
  int64_t queued() const { return static_cast<int64_t>(waiting_.size()); }

  // The number of waiting items of one flow, and of a principal's flows.
  int64_t queued(const FlowName& flow) const;
  int64_t queued_of(const std::string& principal) const;

  // The most items that may wait of a principal's flows.
  int64_t max_queued_of(const std::string& principal) const;

  // The number of waiting items that would run before one that `flow` submitted
  // now, if all items cost the same, none ran together and no others came.
  int64_t Ahead(const FlowName& flow) const;

  // The device's time that each principal has paid for. Those that came when
  // kMostPayers others were known are together the payer of the empty name.
  static constexpr size_t kMostPayers = 64;
  const std::map<std::string, absl::Duration>& paid() const { return paid_; }

  // The number of running items.
  int64_t running() const { return static_cast<int64_t>(running_ids_.size()); }

  // The duration of all waiting items, as estimated by recent costs.
  absl::Duration Backlog() const { return mean_cost_ * queued(); }

  // The recent mean cost of an item.
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
    std::map<Arrival, uint64_t> waiting;  // By arrival: ids.
    bool busy = false;
  };

  // Items of one merge key.
  struct Group {
    std::map<Arrival, uint64_t> waiting;  // By arrival: ids.
    int64_t samples = 0;
    absl::Time release;     // Until then the group waits for more.
    bool released = false;  // Its items are ready.
  };

  struct Flow {
    std::map<Arrival, uint64_t> ready;  // By arrival: ids.
    int64_t waiting = 0;
  };

  // A running batch.
  struct Batch {
    std::vector<uint64_t> ids;
    uint64_t lane = 0;
    // By item: payer and samples; 0 samples if the item was abandoned.
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
  void Pay(const FlowName& flow, absl::Duration cost);

  const SchedulerOptions options_;
  Arrival next_arrival_ = 0;
  std::unordered_map<uint64_t, Waiting> waiting_;  // By id.
  std::set<std::pair<absl::Time, uint64_t>> by_deadline_;
  std::unordered_map<uint64_t, Lane> lanes_;    // With items that wait or run.
  std::unordered_map<uint64_t, Group> groups_;  // By merge key; none is empty.
  std::set<std::pair<absl::Time, uint64_t>> by_release_;  // Not released yet.
  std::map<FlowName, Flow> flows_;                        // Waiting items only.
  std::map<std::string, int64_t> queued_by_principal_;    // Waiting items only.
  FairShare fair_share_;
  std::unordered_map<uint64_t, Batch> running_;  // By its first item.
  std::unordered_set<uint64_t> running_ids_;
  std::vector<uint64_t> expired_;  // Not reported yet.
  std::map<std::string, absl::Duration> paid_;
  absl::Duration mean_cost_ = absl::ZeroDuration();
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_SCHEDULER_SCHEDULER_H_
