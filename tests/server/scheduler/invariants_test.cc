// Checks the invariants of 10,000 random schedules.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/scheduler/scheduler.h"

namespace backboned {
namespace {

class RandomSchedule {
 public:
  explicit RandomSchedule(uint64_t seed)
      : random_(seed),
        options_{.max_queued = 20,
                 .max_queued_by_flow = 8,
                 .max_queued_of =
                     [](const std::string& principal) {
                       return principal == "p1" ? 9 : 20;
                     },
                 .max_batch = 1 + static_cast<int64_t>(Draw(6)),
                 .max_delay = absl::Milliseconds(Draw(3)),
                 .weight_of =
                     [weight = 1 + static_cast<double>(Draw(3))](
                         const std::string& principal) {
                       return principal == "p0" ? weight : 1;
                     }},
        scheduler_(options_) {}

  void Play(int steps) {
    for (int step = 0; step < steps && !::testing::Test::HasFailure(); ++step) {
      now_ += absl::Microseconds(Draw(1500));
      const uint64_t what = Draw(10);
      if (what < 5) {
        Submit();
      } else if (what < 7) {
        Next();
      } else if (what < 9) {
        Done();
      } else {
        Cancel();
      }
    }
    Drain();
  }

 private:
  uint64_t Draw(uint64_t end) { return random_() % end; }

  void Submit() {
    WorkItem item = {
        .id = ++next_id_,
        .flow = {absl::StrCat("p", Draw(2)), absl::StrCat("r", Draw(3))},
        .samples = 1 + static_cast<int64_t>(Draw(3))};
    if (Draw(2) == 0) {
      item.lane = Draw(4);
    } else {
      item.merge_key = Draw(3);
    }
    if (Draw(4) == 0) item.deadline = now_ + absl::Milliseconds(Draw(40));
    const bool submitted = scheduler_.Submit(item, now_).ok();
    // The limits are kept.
    ASSERT_LE(scheduler_.queued(), options_.max_queued);
    ASSERT_LE(scheduler_.queued(item.flow), options_.max_queued_by_flow);
    ASSERT_LE(scheduler_.queued_of("p1"), 9);
    ASSERT_EQ(scheduler_.queued_of("p0") + scheduler_.queued_of("p1"),
              scheduler_.queued());
    ASSERT_LE(scheduler_.Ahead(item.flow), scheduler_.queued());
    if (submitted) waiting_[item.id] = item;
  }

  void Next() {
    const Scheduler::Dispatch dispatch = scheduler_.Next(now_);
    for (const uint64_t id : dispatch.expired) {
      ASSERT_TRUE(waiting_.contains(id)) << "expired twice, or ran before";
      ASSERT_LE(waiting_.at(id).deadline, now_) << "expired too early";
      waiting_.erase(id);
    }
    if (!dispatch.run.empty()) CheckBatch(dispatch.run);
  }

  void CheckBatch(const std::vector<uint64_t>& ids) {
    int64_t samples = 0;
    const uint64_t merge_key = waiting_.at(ids[0]).merge_key;
    std::vector<WorkItem>& batch = running_[ids[0]];
    for (const uint64_t id : ids) {
      ASSERT_TRUE(waiting_.contains(id)) << "ran twice, or was dropped before";
      const WorkItem item = waiting_.at(id);
      ASSERT_GT(item.deadline, now_) << "ran after its deadline";
      // No merge across keys, none without one.
      ASSERT_EQ(item.merge_key, merge_key);
      ASSERT_TRUE(merge_key != 0 || ids.size() == 1);
      // A lane runs one at a time and in order.
      if (item.lane != 0) {
        ASSERT_TRUE(busy_.insert(item.lane).second) << "lane runs twice";
        for (const auto& [other, waits] : waiting_) {
          ASSERT_TRUE(other >= id || waits.lane != item.lane) << "lane order";
        }
      }
      samples += item.samples;
      waiting_.erase(id);
      batch.push_back(item);
    }
    ASSERT_TRUE(ids.size() == 1 || samples <= options_.max_batch);
  }

  void Done() {
    if (running_.empty()) return;
    auto batch = running_.begin();
    std::advance(batch, Draw(running_.size()));
    for (const WorkItem& item : batch->second) busy_.erase(item.lane);
    scheduler_.Done(batch->first, absl::Milliseconds(Draw(20)), now_);
    running_.erase(batch);
  }

  void Cancel() {
    const uint64_t id = 1 + Draw(next_id_ + 1);
    const bool waits = waiting_.contains(id);
    ASSERT_EQ(scheduler_.Cancel(id), waits);
    waiting_.erase(id);
  }

  // Nothing starves: with time and a free device, all waiting items are named.
  void Drain() {
    for (int round = 0; round < 1000 && !::testing::Test::HasFailure();
         ++round) {
      if (waiting_.empty() && running_.empty()) break;
      now_ += absl::Milliseconds(1);
      Next();
      Done();
    }
    ASSERT_TRUE(waiting_.empty()) << waiting_.size() << " items starve";
    ASSERT_EQ(scheduler_.queued(), 0);
    ASSERT_EQ(scheduler_.running(), 0);
  }

  std::mt19937_64 random_;
  const SchedulerOptions options_;
  Scheduler scheduler_;
  absl::Time now_ = absl::UnixEpoch();
  uint64_t next_id_ = 0;
  std::map<uint64_t, WorkItem> waiting_;
  std::map<uint64_t, std::vector<WorkItem>> running_;  // By the first item.
  std::set<uint64_t> busy_;                            // Lanes.
};

TEST(InvariantsTest, HoldInEverySchedule) {
  for (uint64_t seed = 0; seed < 10'000 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    RandomSchedule(seed).Play(/*steps=*/120);
  }
}

}  // namespace
}  // namespace backboned
