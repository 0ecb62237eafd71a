// Decides which waiting work runs next.

#ifndef BACKBONED_SERVER_SCHEDULER_SCHEDULER_H_
#define BACKBONED_SERVER_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace backboned {

// A piece of work that waits for the device.
struct WorkItem {
  // The caller's name for it.
  uint64_t id = 0;
  // Who pays.
  std::string principal = {};
  // Items of one lane run one after another. 0: no lane.
  uint64_t lane = 0;
  // From then on it is not worth running.
  absl::Time deadline = absl::InfiniteFuture();
};

// First come first served, except that the items of a lane run one at a time
// and in their order: while one runs, the next ones wait and items of other
// lanes go before them.
//
// A pure object, without thread and clock: the caller says what time it is,
// with values that do not decrease, so that a test or a simulation drives it as
// the device's worker does. Each operation takes time logarithmic in the number
// of waiting items.
//
// Not thread-safe.
class Scheduler {
 public:
  // What to do now.
  struct Dispatch {
    // Runs until `Done`. At most one.
    std::vector<uint64_t> run;
    // Were dropped at their deadline and never run.
    std::vector<uint64_t> expired;
  };

  // Makes a scheduler that lets at most `max_queued` items wait.
  explicit Scheduler(int64_t max_queued);

  // Takes `item` to the end of the queue.
  //
  // Returns kResourceExhausted if `max_queued` items wait that have not
  // expired, kAlreadyExists if one of this id waits or runs. It is not queued
  // then.
  absl::Status Submit(WorkItem item, absl::Time now);

  // Returns the item that runs now, if any may, and those that have reached
  // their deadline by now. An item is named at most once, by one of the two.
  Dispatch Next(absl::Time now);

  // Takes an item out of the queue. Returns true if it was waiting, or expired
  // without having been reported: `Next` will never name it. False if it runs
  // or is unknown.
  bool Cancel(uint64_t id);

  // Says that a running item has ended after `cost` of the device's time: its
  // lane is free. Without effect if `id` does not run.
  void Done(uint64_t id, absl::Duration cost, absl::Time now);

  // Items that wait; one that expires counts until Submit or Next is called.
  int64_t queued() const { return static_cast<int64_t>(waiting_.size()); }

  // Items that run.
  int64_t running() const { return static_cast<int64_t>(running_.size()); }

  // How many items may wait.
  int64_t max_queued() const { return max_queued_; }

 private:
  // Counts submissions: the order of arrival.
  using Arrival = uint64_t;

  struct Waiting {
    WorkItem item;
    Arrival arrival;
  };

  struct Lane {
    std::map<Arrival, uint64_t> waiting;  // By arrival, the item's id.
    bool busy = false;
  };

  void Expire(absl::Time now);
  void Remove(uint64_t id);
  void Offer(const Lane& lane);

  const int64_t max_queued_;
  Arrival next_arrival_ = 0;
  std::unordered_map<uint64_t, Waiting> waiting_;  // By id.
  std::set<std::pair<absl::Time, uint64_t>> by_deadline_;
  std::unordered_map<uint64_t, Lane> lanes_;  // Those that wait or are busy.
  // May run: the first of each free lane, and all without a lane.
  std::map<Arrival, uint64_t> ready_;
  std::unordered_map<uint64_t, uint64_t> running_;  // By id, the lane.
  std::vector<uint64_t> expired_;                   // Not reported yet.
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_SCHEDULER_SCHEDULER_H_
