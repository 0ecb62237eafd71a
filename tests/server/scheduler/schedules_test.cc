// Compares random schedules of the Scheduler with those of a simple model.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "absl/time/time.h"
#include "server/scheduler/scheduler.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;

// A slow but obvious scheduler: a list by arrival.
class Model {
 public:
  void Submit(const WorkItem& item) { waiting_.push_back(item); }

  bool Cancel(uint64_t id) {
    return std::erase_if(waiting_, [&](const WorkItem& item) {
             return item.id == id;
           }) > 0;
  }

  std::set<uint64_t> Expire(absl::Time now) {
    std::set<uint64_t> expired;
    std::erase_if(waiting_, [&](const WorkItem& item) {
      if (item.deadline > now) return false;
      expired.insert(item.id);
      return true;
    });
    return expired;
  }

  std::vector<uint64_t> Run() {
    const auto first =
        std::find_if(waiting_.begin(), waiting_.end(), [&](const auto& item) {
          return item.lane == 0 || !busy_.contains(item.lane);
        });
    if (first == waiting_.end()) return {};
    const WorkItem item = *first;
    waiting_.erase(first);
    running_[item.id] = item.lane;
    if (item.lane != 0) busy_.insert(item.lane);
    return {item.id};
  }

  void Done(uint64_t id) {
    busy_.erase(running_.at(id));
    running_.erase(id);
  }

  const std::vector<WorkItem>& waiting() const { return waiting_; }
  const std::map<uint64_t, uint64_t>& running() const { return running_; }

 private:
  std::vector<WorkItem> waiting_;
  std::map<uint64_t, uint64_t> running_;  // By id, the lane.
  std::set<uint64_t> busy_;
};

// Drives the Scheduler and the Model by the same random calls, and compares.
class Schedule {
 public:
  explicit Schedule(uint64_t seed) : random_(seed) {}

  void Play(int steps) {
    for (int step = 0; step < steps && !::testing::Test::HasFailure(); ++step) {
      now_ += absl::Milliseconds(Draw(4));
      switch (Draw(6)) {
        case 0:
          Cancel();
          break;
        case 1:
          Next();
          break;
        case 2:
          Done();
          break;
        default:
          Submit();
      }
      ASSERT_EQ(scheduler_.running(), std::ssize(model_.running()));
    }
    Drain();
    EXPECT_EQ(named_.size(), submitted_) << "an item was lost";
  }

 private:
  static constexpr int64_t kMaxQueued = 12;

  uint64_t Draw(uint64_t end) { return random_() % end; }

  void Submit() {
    WorkItem item{.id = ++next_id_, .lane = Draw(4)};
    if (Draw(2) == 0) item.deadline = now_ + absl::Milliseconds(Draw(30));
    NoteExpired(model_.Expire(now_));
    const bool fits = std::ssize(model_.waiting()) < kMaxQueued;
    ASSERT_EQ(scheduler_.Submit(item, now_).ok(), fits);
    if (!fits) return;
    model_.Submit(item);
    ++submitted_;
  }

  void Cancel() {
    const uint64_t id = 1 + Draw(next_id_ + 1);
    const bool waits = model_.Cancel(id) || unreported_.erase(id) > 0;
    ASSERT_EQ(scheduler_.Cancel(id), waits);
    if (waits) Name(id);
  }

  void Next() {
    NoteExpired(model_.Expire(now_));
    const Scheduler::Dispatch dispatch = scheduler_.Next(now_);
    ASSERT_EQ(dispatch.run, model_.Run());
    ASSERT_EQ(
        std::set<uint64_t>(dispatch.expired.begin(), dispatch.expired.end()),
        unreported_);
    unreported_.clear();
    for (uint64_t id : dispatch.run) Name(id);
    for (uint64_t id : dispatch.expired) Name(id);
  }

  void Done() {
    if (model_.running().empty()) return;
    const uint64_t id = model_.running().begin()->first;
    model_.Done(id);
    scheduler_.Done(id, absl::Milliseconds(1), now_);
  }

  void Drain() {
    while (scheduler_.queued() + scheduler_.running() > 0 &&
           !::testing::Test::HasFailure()) {
      Next();
      Done();
    }
    Next();
  }

  void NoteExpired(const std::set<uint64_t>& ids) {
    unreported_.insert(ids.begin(), ids.end());
  }

  // An item leaves the queue once: it runs, expires or is cancelled.
  void Name(uint64_t id) { ASSERT_TRUE(named_.insert(id).second) << id; }

  std::mt19937_64 random_;
  absl::Time now_ = absl::UnixEpoch();
  Scheduler scheduler_{{.max_queued = kMaxQueued}};
  Model model_;
  uint64_t next_id_ = 0;
  size_t submitted_ = 0;
  std::set<uint64_t> unreported_;  // Expired, but not yet reported by Next.
  std::set<uint64_t> named_;
};

TEST(SchedulesTest, AgreeWithAnObviousScheduler) {
  for (uint64_t seed = 0; seed < 2000 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Schedule(seed).Play(/*steps=*/200);
  }
}

// If each Next scanned the items of the busy lane, this would take minutes.
TEST(SchedulesTest, PassesLongQueueOfBusyLane) {
  constexpr uint64_t kBlocked = 100'000;
  constexpr uint64_t kPassing = 100'000;
  constexpr int64_t kAll = kBlocked + kPassing;
  Scheduler scheduler({.max_queued = kAll, .max_queued_by_flow = kAll});
  const absl::Time now = absl::UnixEpoch();
  uint64_t id = 0;
  while (id < kBlocked) {
    ASSERT_THAT(scheduler.Submit({.id = ++id, .lane = 1}, now), IsOk());
  }
  ASSERT_THAT(scheduler.Next(now).run, ElementsAre(1));
  for (uint64_t passed = 0; passed < kPassing; ++passed) {
    ASSERT_THAT(scheduler.Submit({.id = ++id, .lane = 2}, now), IsOk());
    ASSERT_THAT(scheduler.Next(now).run, ElementsAre(id));
    scheduler.Done(id, absl::Milliseconds(1), now);
  }
  EXPECT_EQ(scheduler.queued(), static_cast<int64_t>(kBlocked) - 1);
}

}  // namespace
}  // namespace backboned
