#include "server/scheduler/scheduler.h"

#include <iterator>

#include "absl/strings/str_cat.h"

namespace backboned {

Scheduler::Scheduler(int64_t max_queued) : max_queued_(max_queued) {}

absl::Status Scheduler::Submit(WorkItem item, absl::Time now) {
  Expire(now);
  const uint64_t id = item.id;
  if (waiting_.contains(id) || running_.contains(id)) {
    return absl::AlreadyExistsError(
        absl::StrCat("work item ", id, " already waits or runs"));
  }
  if (queued() >= max_queued_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        queued(), " calls wait for the device, the limit is ", max_queued_));
  }
  const Arrival arrival = next_arrival_++;
  if (item.deadline != absl::InfiniteFuture()) {
    by_deadline_.emplace(item.deadline, id);
  }
  if (item.lane == 0) {
    ready_.emplace(arrival, id);
  } else {
    Lane& lane = lanes_[item.lane];
    lane.waiting.emplace(arrival, id);
    Offer(lane);
  }
  waiting_.emplace(id, Waiting{std::move(item), arrival});
  return absl::OkStatus();
}

Scheduler::Dispatch Scheduler::Next(absl::Time now) {
  Expire(now);
  Dispatch dispatch;
  dispatch.expired = std::exchange(expired_, {});
  if (ready_.empty()) return dispatch;
  const uint64_t id = ready_.begin()->second;
  const uint64_t lane = waiting_.at(id).item.lane;
  // Busy first, so that removing the item does not offer the lane's next.
  if (lane != 0) lanes_.at(lane).busy = true;
  Remove(id);
  running_.emplace(id, lane);
  dispatch.run.push_back(id);
  return dispatch;
}

bool Scheduler::Cancel(uint64_t id) {
  if (waiting_.contains(id)) {
    Remove(id);
    return true;
  }
  return std::erase(expired_, id) > 0;
}

void Scheduler::Done(uint64_t id, absl::Duration /*cost*/, absl::Time /*now*/) {
  const auto running = running_.find(id);
  if (running == running_.end()) return;
  const auto lane = lanes_.find(running->second);
  running_.erase(running);
  if (lane == lanes_.end()) return;
  lane->second.busy = false;
  Offer(lane->second);
  if (lane->second.waiting.empty()) lanes_.erase(lane);
}

// Takes those past their deadline out of the queue, to be reported.
void Scheduler::Expire(absl::Time now) {
  while (!by_deadline_.empty() && by_deadline_.begin()->first <= now) {
    const uint64_t id = by_deadline_.begin()->second;
    Remove(id);
    expired_.push_back(id);
  }
}

// Takes a waiting item out of the queue; the next of its lane moves up.
void Scheduler::Remove(uint64_t id) {
  const auto waiting = waiting_.find(id);
  const auto& [item, arrival] = waiting->second;
  by_deadline_.erase({item.deadline, id});
  ready_.erase(arrival);
  if (item.lane != 0) {
    const auto lane = lanes_.find(item.lane);
    lane->second.waiting.erase(arrival);
    Offer(lane->second);
    if (lane->second.waiting.empty() && !lane->second.busy) lanes_.erase(lane);
  }
  waiting_.erase(waiting);
}

// Makes the first of a free lane ready, if it is not.
void Scheduler::Offer(const Lane& lane) {
  if (!lane.busy && !lane.waiting.empty()) ready_.insert(*lane.waiting.begin());
}

}  // namespace backboned
