#include "server/scheduler/scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace backboned {
namespace {

// The newest item's part in the mean cost.
constexpr double kMeanWeight = 0.1;

}  // namespace

Scheduler::Scheduler(SchedulerOptions options)
    : options_(std::move(options)), fair_share_(options_.weight_of) {}

absl::Status Scheduler::Submit(WorkItem item, absl::Time now) {
  Expire(now);
  const uint64_t id = item.id;
  if (waiting_.contains(id) || running_ids_.contains(id)) {
    return absl::AlreadyExistsError(
        absl::StrCat("work item ", id, " already waits or runs"));
  }
  if (!item.continues) {
    absl::Status admitted = CheckLimits(item.flow);
    if (!admitted.ok()) return admitted;
  }
  if (item.deadline != absl::InfiniteFuture()) {
    by_deadline_.emplace(item.deadline, id);
  }
  ++flows_[item.flow].waiting;
  ++queued_by_principal_[item.flow.principal];
  const Waiting& waiting =
      waiting_.emplace(id, Waiting{std::move(item), next_arrival_++})
          .first->second;
  if (waiting.item.merge_key != 0) {
    Join(waiting, now);
  } else if (waiting.item.lane != 0) {
    Lane& lane = lanes_[waiting.item.lane];
    lane.waiting.emplace(waiting.arrival, id);
    Offer(lane);
  } else {
    MakeReady(id);
  }
  return absl::OkStatus();
}

// Returns an error unless one more item of `flow` may wait.
absl::Status Scheduler::CheckLimits(const FlowName& flow) const {
  if (queued() >= options_.max_queued) {
    return absl::ResourceExhaustedError(
        absl::StrCat(queued(), " calls wait for the device, the limit is ",
                     options_.max_queued));
  }
  const std::string& principal = flow.principal;
  if (queued_of(principal) >= max_queued_of(principal)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(queued_of(principal),
                     " calls of this principal wait for the device, the ",
                     "limit is ", max_queued_of(principal)));
  }
  if (queued(flow) >= options_.max_queued_by_flow) {
    return absl::ResourceExhaustedError(
        absl::StrCat(queued(flow), " calls of this run wait for the device, ",
                     "the limit is ", options_.max_queued_by_flow));
  }
  return absl::OkStatus();
}

Scheduler::Dispatch Scheduler::Next(absl::Time now) {
  Expire(now);
  ReleaseDue(now);
  Dispatch dispatch;
  dispatch.expired = std::exchange(expired_, {});
  const std::optional<FlowName> flow = fair_share_.Next();
  if (!flow) {
    if (!by_release_.empty()) dispatch.wake = by_release_.begin()->first;
    return dispatch;
  }
  const uint64_t leader = flows_.at(*flow).ready.begin()->second;
  dispatch.run = Gather(leader, dispatch.reason);
  Begin(dispatch.run);
  return dispatch;
}

bool Scheduler::Cancel(uint64_t id) {
  if (waiting_.contains(id)) {
    Remove(id);
    return true;
  }
  return std::erase(expired_, id) > 0;
}

void Scheduler::Abandon(uint64_t batch, uint64_t id) {
  const auto found = running_.find(batch);
  if (found == running_.end()) return;
  const std::vector<uint64_t>& ids = found->second.ids;
  const auto item = std::ranges::find(ids, id);
  if (item == ids.end()) return;
  found->second.shares[static_cast<size_t>(item - ids.begin())].second = 0;
}

void Scheduler::Done(uint64_t id, absl::Duration cost, absl::Time /*now*/) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  cost = std::max(cost, absl::ZeroDuration());
  const Batch batch = std::move(found->second);
  running_.erase(found);
  for (const uint64_t ended : batch.ids) running_ids_.erase(ended);
  int64_t samples = 0;
  for (const auto& [flow, share] : batch.shares) samples += share;
  for (const auto& [flow, share] : batch.shares) {
    if (share == 0) {
      fair_share_.Charge(flow, absl::ZeroDuration());
      continue;
    }
    Pay(flow, cost * share / samples);
    mean_cost_ += (cost * share / samples - mean_cost_) * kMeanWeight;
  }
  const auto lane = lanes_.find(batch.lane);
  if (lane == lanes_.end()) return;
  lane->second.busy = false;
  Offer(lane->second);
  if (lane->second.waiting.empty()) lanes_.erase(lane);
}

void Scheduler::Pay(const FlowName& flow, absl::Duration cost) {
  fair_share_.Charge(flow, cost);
  const bool is_named =
      paid_.size() < kMostPayers || paid_.contains(flow.principal);
  paid_[is_named ? flow.principal : ""] += cost;
}

int64_t Scheduler::queued(const FlowName& flow) const {
  const auto found = flows_.find(flow);
  return found == flows_.end() ? 0 : found->second.waiting;
}

int64_t Scheduler::queued_of(const std::string& principal) const {
  const auto found = queued_by_principal_.find(principal);
  return found == queued_by_principal_.end() ? 0 : found->second;
}

int64_t Scheduler::max_queued_of(const std::string& principal) const {
  if (options_.max_queued_of == nullptr) return options_.max_queued;
  return options_.max_queued_of(principal);
}

int64_t Scheduler::Ahead(const FlowName& flow) const {
  // Principals take turns by their weights, and their flows equally.
  const int64_t own = queued(flow);
  int64_t ahead = own;
  for (const auto& [name, other] : flows_) {
    if (name.principal == flow.principal && name != flow) {
      ahead += std::min(other.waiting, own + 1);
    }
  }
  const double turns =
      static_cast<double>(ahead + 1) / fair_share_.weight_of(flow.principal);
  for (const auto& [principal, waiting] : queued_by_principal_) {
    if (principal == flow.principal) continue;
    const double theirs = std::ceil(turns * fair_share_.weight_of(principal));
    ahead += theirs < static_cast<double>(waiting)
                 ? static_cast<int64_t>(theirs)
                 : waiting;
  }
  return ahead;
}

// Takes items past their deadline out of the queue, to be reported.
void Scheduler::Expire(absl::Time now) {
  while (!by_deadline_.empty() && by_deadline_.begin()->first <= now) {
    const uint64_t id = by_deadline_.begin()->second;
    Remove(id);
    expired_.push_back(id);
  }
}

// Takes a waiting item out of the queue; the next of its lane moves up.
void Scheduler::Remove(uint64_t id) {
  const auto found = waiting_.find(id);
  const Waiting waiting = std::move(found->second);
  waiting_.erase(found);
  by_deadline_.erase({waiting.item.deadline, id});
  const auto flow = flows_.find(waiting.item.flow);
  if (waiting.ready) {
    auto& ready = flow->second.ready;
    const bool was_first = ready.begin()->first == waiting.arrival;
    ready.erase(waiting.arrival);
    if (ready.empty()) {
      fair_share_.SetFirst(waiting.item.flow, std::nullopt);
    } else if (was_first) {
      fair_share_.SetFirst(waiting.item.flow, ready.begin()->first);
    }
  }
  const auto principal = queued_by_principal_.find(waiting.item.flow.principal);
  if (--principal->second == 0) queued_by_principal_.erase(principal);
  if (--flow->second.waiting == 0) flows_.erase(flow);
  if (waiting.item.merge_key != 0) RemoveFromGroup(waiting);
  if (waiting.item.lane != 0) RemoveFromLane(waiting);
}

void Scheduler::RemoveFromLane(const Waiting& waiting) {
  const auto lane = lanes_.find(waiting.item.lane);
  lane->second.waiting.erase(waiting.arrival);
  Offer(lane->second);
  if (lane->second.waiting.empty() && !lane->second.busy) lanes_.erase(lane);
}

void Scheduler::RemoveFromGroup(const Waiting& waiting) {
  const auto found = groups_.find(waiting.item.merge_key);
  Group& group = found->second;
  group.waiting.erase(waiting.arrival);
  group.samples -= waiting.item.samples;
  if (!group.waiting.empty()) return;
  by_release_.erase({group.release, found->first});
  groups_.erase(found);
}

// Makes the first item of a free lane ready.
void Scheduler::Offer(const Lane& lane) {
  if (!lane.busy && !lane.waiting.empty()) {
    MakeReady(lane.waiting.begin()->second);
  }
}

// Adds an item to the group of its merge key.
void Scheduler::Join(const Waiting& waiting, absl::Time now) {
  const WorkItem& item = waiting.item;
  const auto [found, is_new] = groups_.try_emplace(item.merge_key);
  Group& group = found->second;
  if (is_new) {
    group.release = now + options_.max_delay;
    by_release_.emplace(group.release, item.merge_key);
  }
  group.waiting.emplace(waiting.arrival, item.id);
  group.samples += item.samples;
  if (group.released) {
    MakeReady(item.id);
  } else if (group.samples >= options_.max_batch || group.release <= now) {
    Release(item.merge_key, group);
  }
}

void Scheduler::Release(uint64_t merge_key, Group& group) {
  by_release_.erase({group.release, merge_key});
  group.released = true;
  for (const auto& [arrival, id] : group.waiting) MakeReady(id);
}

void Scheduler::ReleaseDue(absl::Time now) {
  while (!by_release_.empty() && by_release_.begin()->first <= now) {
    const uint64_t merge_key = by_release_.begin()->second;
    Release(merge_key, groups_.at(merge_key));
  }
}

void Scheduler::MakeReady(uint64_t id) {
  Waiting& waiting = waiting_.at(id);
  if (waiting.ready) return;
  waiting.ready = true;
  auto& ready = flows_.at(waiting.item.flow).ready;
  ready.emplace(waiting.arrival, id);
  fair_share_.SetFirst(waiting.item.flow, ready.begin()->first);
}

// Returns `leader` and the items to run with it, in the order of arrival behind
// it.
std::vector<uint64_t> Scheduler::Gather(uint64_t leader,
                                        BatchReason& reason) const {
  std::vector<uint64_t> ids = {leader};
  const WorkItem& first = waiting_.at(leader).item;
  if (first.merge_key == 0) return ids;
  const Group& group = groups_.at(first.merge_key);
  int64_t samples = first.samples;
  bool full = samples >= options_.max_batch;
  for (const auto& [arrival, id] : group.waiting) {
    if (full) break;
    if (id == leader) continue;
    const int64_t more = waiting_.at(id).item.samples;
    full = samples + more > options_.max_batch;
    if (full) break;
    ids.push_back(id);
    samples += more;
    full = samples == options_.max_batch;
  }
  if (full) {
    reason = BatchReason::kFull;
  } else if (options_.max_delay > absl::ZeroDuration()) {
    reason = BatchReason::kDelay;
  } else if (queued() > static_cast<int64_t>(ids.size())) {
    reason = BatchReason::kIncompatible;
  } else {
    reason = BatchReason::kDeviceIdle;
  }
  return ids;
}

// Takes a batch out of the queue, to run.
void Scheduler::Begin(const std::vector<uint64_t>& ids) {
  Batch batch = {.ids = ids};
  for (const uint64_t id : ids) {
    const WorkItem& item = waiting_.at(id).item;
    fair_share_.Begin(item.flow, /*its_turn=*/id == ids.front());
    batch.shares.emplace_back(item.flow, item.samples);
    // Busy first, so that removing the item does not offer the lane's next.
    batch.lane = item.lane;
    if (item.lane != 0) lanes_.at(item.lane).busy = true;
  }
  for (const uint64_t id : ids) Remove(id);
  running_ids_.insert(ids.begin(), ids.end());
  running_.emplace(ids.front(), std::move(batch));
}

}  // namespace backboned
