#include "server/scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class SchedulerTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kLaneA = 1;
  static constexpr uint64_t kLaneB = 2;

  static absl::Time At(int64_t seconds) {
    return absl::UnixEpoch() + absl::Seconds(seconds);
  }

  void Submit(uint64_t id, uint64_t lane,
              absl::Time deadline = absl::InfiniteFuture()) {
    ASSERT_THAT(scheduler_.Submit(
                    {.id = id, .lane = lane, .deadline = deadline}, At(0)),
                IsOk());
  }

  std::vector<uint64_t> Run(int64_t seconds = 0) {
    return scheduler_.Next(At(seconds)).run;
  }

  void Done(uint64_t id) { scheduler_.Done(id, absl::Seconds(1), At(0)); }

  Scheduler scheduler_{{.max_queued = 4}};
};

TEST(SchedulerLimitsTest, RefusesAPrincipalOverItsPartAndNoOther) {
  Scheduler scheduler({.max_queued_of = [](const std::string&) { return 2; }});
  const absl::Time now = absl::UnixEpoch();
  ASSERT_THAT(scheduler.Submit({.id = 1, .flow = {"anna", "a"}}, now), IsOk());
  ASSERT_THAT(scheduler.Submit({.id = 2, .flow = {"anna", "b"}}, now), IsOk());
  EXPECT_THAT(scheduler.Submit({.id = 3, .flow = {"anna", "c"}}, now),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("2 calls of this principal wait")));
  EXPECT_THAT(scheduler.Submit({.id = 4, .flow = {"bert", "a"}}, now), IsOk());
  EXPECT_EQ(scheduler.queued_of("anna"), 2);
  scheduler.Next(now);
  EXPECT_EQ(scheduler.queued_of("anna"), 1);
  EXPECT_THAT(scheduler.Submit({.id = 5, .flow = {"anna", "c"}}, now), IsOk());
}

// Submits an item of a principal and runs it for a second.
void Pay(Scheduler& scheduler, const std::string& principal) {
  const absl::Time now = absl::UnixEpoch();
  ASSERT_THAT(scheduler.Submit({.id = 1, .flow = {principal, "a"}}, now),
              IsOk());
  ASSERT_THAT(scheduler.Next(now).run, ElementsAre(1));
  scheduler.Done(1, absl::Seconds(1), now);
}

TEST(SchedulerPaidTest, NamesTheFirstPayersAndSumsTheOthers) {
  Scheduler scheduler({});
  for (size_t i = 0; i < Scheduler::kMostPayers + 2; ++i) {
    Pay(scheduler, std::to_string(i));
  }
  Pay(scheduler, "0");
  EXPECT_EQ(scheduler.paid().size(), Scheduler::kMostPayers + 1);
  EXPECT_EQ(scheduler.paid().at("0"), absl::Seconds(2));
  EXPECT_EQ(scheduler.paid().at(""), absl::Seconds(2));
}

TEST(SchedulerLimitsTest, RefusesNothingThatContinues) {
  Scheduler scheduler({.max_queued = 1});
  const absl::Time now = absl::UnixEpoch();
  ASSERT_THAT(scheduler.Submit({.id = 1}, now), IsOk());
  EXPECT_THAT(scheduler.Submit({.id = 2}, now),
              StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(scheduler.Submit({.id = 2, .continues = true}, now), IsOk());
  EXPECT_EQ(scheduler.queued(), 2);
}

// Runs all waiting items, and then an item of `flow` that came last; returns
// the number of items that ran before that.
int64_t RunsBefore(Scheduler& scheduler, const FlowName& flow) {
  constexpr uint64_t kLast = 1000;
  const absl::Time now = absl::UnixEpoch();
  EXPECT_THAT(scheduler.Submit({.id = kLast, .flow = flow}, now), IsOk());
  for (int64_t before = 0;; ++before) {
    const uint64_t id = scheduler.Next(now).run.at(0);
    scheduler.Done(id, absl::Seconds(1), now);
    if (id == kLast) return before;
  }
}

TEST(SchedulerAheadTest, IsWhatRunsBefore) {
  Scheduler scheduler({});
  const absl::Time now = absl::UnixEpoch();
  const FlowName mine = {"anna", "mine"};
  uint64_t id = 0;
  EXPECT_EQ(scheduler.Ahead(mine), 0);
  const auto submit = [&](const FlowName& flow, int count) {
    for (int i = 0; i < count; ++i) {
      ASSERT_THAT(scheduler.Submit({.id = ++id, .flow = flow}, now), IsOk());
    }
  };
  submit({"anna", "flood"}, 50);
  submit({"anna", "few"}, 1);
  submit(mine, 2);
  const int64_t ahead = scheduler.Ahead(mine);
  EXPECT_EQ(ahead, 2 + 3 + 1);  // Its own, three turns of the flood, the few.
  EXPECT_EQ(RunsBefore(scheduler, mine), ahead);
}

TEST(SchedulerAheadTest, CountsOtherPrincipalsByTheirWeights) {
  Scheduler scheduler({.weight_of = [](const std::string& principal) {
    return principal == "bert" ? 3 : 1;
  }});
  const absl::Time now = absl::UnixEpoch();
  for (uint64_t id = 1; id <= 20; ++id) {
    ASSERT_THAT(scheduler.Submit({.id = id, .flow = {"bert", "b"}}, now),
                IsOk());
  }
  EXPECT_EQ(scheduler.Ahead({"anna", "a"}), 3);
}

// Returns the order of the turns of the flows `a` and `b`, with 3 items each,
// when the first item of `a` costs `first_cost` and all others a second.
std::string TurnsAfter(absl::Duration first_cost) {
  Scheduler scheduler({});
  const absl::Time now = absl::UnixEpoch();
  for (uint64_t id = 0; id < 6; ++id) {
    const FlowName flow = {"anna", id < 3 ? "a" : "b"};
    EXPECT_THAT(scheduler.Submit({.id = id, .flow = flow}, now), IsOk());
  }
  std::string turns;
  for (absl::Duration cost = first_cost; turns.size() < 6;
       cost = absl::Seconds(1)) {
    const uint64_t id = scheduler.Next(now).run.at(0);
    turns += id < 3 ? 'a' : 'b';
    scheduler.Done(id, cost, now);
  }
  return turns;
}

TEST(SchedulerCostTest, NegativeCostsBuyNothing) {
  EXPECT_EQ(TurnsAfter(absl::ZeroDuration()), "aababb");
  EXPECT_EQ(TurnsAfter(-absl::Hours(1)), "aababb");
}

TEST_F(SchedulerTest, RunsNothingWhenNothingWaits) {
  EXPECT_THAT(Run(), IsEmpty());
}

TEST_F(SchedulerTest, RunsInOrderOfArrival) {
  Submit(7, 0);
  Submit(3, kLaneA);
  Submit(5, kLaneB);
  EXPECT_THAT(Run(), ElementsAre(7));
  EXPECT_THAT(Run(), ElementsAre(3));
  EXPECT_THAT(Run(), ElementsAre(5));
  EXPECT_THAT(Run(), IsEmpty());
}

TEST_F(SchedulerTest, HoldsBackItemsOfBusyLane) {
  Submit(1, kLaneA);
  Submit(2, kLaneA);
  EXPECT_THAT(Run(), ElementsAre(1));
  EXPECT_THAT(Run(), IsEmpty());
  Done(1);
  EXPECT_THAT(Run(), ElementsAre(2));
}

TEST_F(SchedulerTest, LetsOtherLanesPassBusyLane) {
  Submit(1, kLaneA);
  Submit(2, kLaneA);
  Submit(3, kLaneB);
  Submit(4, 0);
  EXPECT_THAT(Run(), ElementsAre(1));
  EXPECT_THAT(Run(), ElementsAre(3));
  EXPECT_THAT(Run(), ElementsAre(4));
  EXPECT_THAT(Run(), IsEmpty());
}

TEST_F(SchedulerTest, FreedLaneKeepsItsPlaceInTheQueue) {
  Submit(1, kLaneA);
  Submit(2, kLaneA);
  Submit(3, kLaneB);
  EXPECT_THAT(Run(), ElementsAre(1));
  Done(1);
  EXPECT_THAT(Run(), ElementsAre(2));  // It came before 3.
}

TEST_F(SchedulerTest, RunsItemsWithoutLaneSideBySide) {
  Submit(1, 0);
  Submit(2, 0);
  EXPECT_THAT(Run(), ElementsAre(1));
  EXPECT_THAT(Run(), ElementsAre(2));
  EXPECT_EQ(scheduler_.running(), 2);
}

TEST_F(SchedulerTest, RefusesItemOverTheLimit) {
  for (uint64_t id = 1; id <= 4; ++id) Submit(id, 0);
  EXPECT_THAT(
      scheduler_.Submit({.id = 5}, At(0)),
      StatusIs(absl::StatusCode::kResourceExhausted,
               HasSubstr("4 calls wait for the device, the limit is 4")));
  EXPECT_FALSE(scheduler_.Cancel(5));
}

TEST_F(SchedulerTest, RunningItemsAreNotQueued) {
  for (uint64_t id = 1; id <= 4; ++id) Submit(id, 0);
  EXPECT_THAT(Run(), ElementsAre(1));
  Submit(5, 0);
  EXPECT_EQ(scheduler_.queued(), 4);
  EXPECT_EQ(scheduler_.running(), 1);
}

TEST_F(SchedulerTest, RefusesIdThatWaitsOrRuns) {
  Submit(1, 0);
  EXPECT_THAT(scheduler_.Submit({.id = 1}, At(0)),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr("work item 1 already waits or runs")));
  EXPECT_THAT(Run(), ElementsAre(1));
  EXPECT_THAT(scheduler_.Submit({.id = 1}, At(0)),
              StatusIs(absl::StatusCode::kAlreadyExists));
  Done(1);
  EXPECT_THAT(scheduler_.Submit({.id = 1}, At(0)), IsOk());
}

TEST_F(SchedulerTest, DropsItemAtItsDeadline) {
  Submit(1, 0, At(10));
  Submit(2, 0, At(11));
  const Scheduler::Dispatch dispatch = scheduler_.Next(At(10));
  EXPECT_THAT(dispatch.expired, ElementsAre(1));
  EXPECT_THAT(dispatch.run, ElementsAre(2));
  EXPECT_THAT(scheduler_.Next(At(20)).expired, IsEmpty());
}

TEST_F(SchedulerTest, DropsExpiredItemBehindBusyLane) {
  Submit(1, kLaneA);
  Submit(2, kLaneA, At(5));
  Submit(3, kLaneA);
  EXPECT_THAT(Run(), ElementsAre(1));
  EXPECT_THAT(scheduler_.Next(At(5)).expired, ElementsAre(2));
  Done(1);
  EXPECT_THAT(Run(5), ElementsAre(3));
}

TEST_F(SchedulerTest, RunningItemDoesNotExpire) {
  Submit(1, 0, At(5));
  EXPECT_THAT(Run(), ElementsAre(1));
  EXPECT_THAT(scheduler_.Next(At(10)).expired, IsEmpty());
}

TEST_F(SchedulerTest, ExpiredItemsGiveTheirPlaceToNewOnes) {
  for (uint64_t id = 1; id <= 4; ++id) Submit(id, 0, At(5));
  EXPECT_THAT(scheduler_.Submit({.id = 5}, At(6)), IsOk());
  const Scheduler::Dispatch dispatch = scheduler_.Next(At(6));
  EXPECT_THAT(dispatch.expired, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(dispatch.run, ElementsAre(5));
}

TEST_F(SchedulerTest, CancelledItemNeverRuns) {
  Submit(1, kLaneA);
  Submit(2, kLaneA);
  EXPECT_TRUE(scheduler_.Cancel(1));
  EXPECT_FALSE(scheduler_.Cancel(1));
  EXPECT_THAT(Run(), ElementsAre(2));
  EXPECT_EQ(scheduler_.queued(), 0);
}

TEST_F(SchedulerTest, CancelRefusesRunningAndUnknownItems) {
  Submit(1, 0);
  EXPECT_THAT(Run(), ElementsAre(1));
  EXPECT_FALSE(scheduler_.Cancel(1));
  EXPECT_FALSE(scheduler_.Cancel(99));
}

TEST_F(SchedulerTest, CancelledItemIsNotReportedAsExpired) {
  Submit(1, 0, At(5));
  ASSERT_THAT(scheduler_.Submit({.id = 2}, At(6)), IsOk());  // Notices it.
  EXPECT_TRUE(scheduler_.Cancel(1));
  EXPECT_THAT(scheduler_.Next(At(6)).expired, IsEmpty());
}

TEST_F(SchedulerTest, IgnoresEndOfWhatDoesNotRun) {
  Submit(1, kLaneA);
  Submit(2, kLaneA);
  EXPECT_THAT(Run(), ElementsAre(1));
  Done(2);
  Done(99);
  EXPECT_THAT(Run(), IsEmpty());
  Done(1);
  EXPECT_THAT(Run(), ElementsAre(2));
}

}  // namespace
}  // namespace backboned
