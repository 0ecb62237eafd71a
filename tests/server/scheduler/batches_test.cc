// Tests which work runs together, and when a batch leaves.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "server/scheduler/scheduler.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kKeyA = 1;
constexpr uint64_t kKeyB = 2;

absl::Time At(int64_t milliseconds) {
  return absl::UnixEpoch() + absl::Milliseconds(milliseconds);
}

void Submit(Scheduler& scheduler, uint64_t id, uint64_t merge_key,
            int64_t samples = 1, int64_t milliseconds = 0,
            const std::string& run = "") {
  ASSERT_THAT(scheduler.Submit({.id = id,
                                .flow = {"local", run},
                                .merge_key = merge_key,
                                .samples = samples},
                               At(milliseconds)),
              IsOk());
}

TEST(BatchesTest, TakesWhatWaitsOfOneKey) {
  Scheduler scheduler({});
  Submit(scheduler, 1, kKeyA, 1, 0, "x");
  Submit(scheduler, 2, kKeyB, 1, 0, "y");
  Submit(scheduler, 3, kKeyA, 1, 0, "z");
  const Scheduler::Dispatch first = scheduler.Next(At(0));
  EXPECT_THAT(first.run, ElementsAre(1, 3));
  EXPECT_EQ(first.reason, BatchReason::kIncompatible);
  EXPECT_EQ(scheduler.running(), 2);
  scheduler.Done(1, absl::Milliseconds(1), At(1));
  EXPECT_EQ(scheduler.running(), 0);
  const Scheduler::Dispatch second = scheduler.Next(At(1));
  EXPECT_THAT(second.run, ElementsAre(2));
  EXPECT_EQ(second.reason, BatchReason::kDeviceIdle);
}

TEST(BatchesTest, WhoWasAbandonedPaysNothing) {
  Scheduler scheduler({});
  Submit(scheduler, 1, kKeyA, 1, 0, "x");
  Submit(scheduler, 2, kKeyA, 1, 0, "y");
  EXPECT_THAT(scheduler.Next(At(0)).run, ElementsAre(1, 2));
  scheduler.Abandon(1, 1);
  scheduler.Abandon(1, 7);
  scheduler.Abandon(7, 2);
  Submit(scheduler, 3, 0, 1, 0, "y");
  Submit(scheduler, 4, 0, 1, 0, "x");
  scheduler.Done(1, absl::Milliseconds(10), At(10));
  EXPECT_EQ(scheduler.mean_cost(), absl::Milliseconds(1));  // A tenth of 10.
  EXPECT_THAT(scheduler.Next(At(10)).run, ElementsAre(4));
}

TEST(BatchesTest, ABatchOfWhichNothingRanCostsNothing) {
  Scheduler scheduler({});
  Submit(scheduler, 1, kKeyA);
  EXPECT_THAT(scheduler.Next(At(0)).run, ElementsAre(1));
  scheduler.Abandon(1, 1);
  scheduler.Done(1, absl::ZeroDuration(), At(0));
  EXPECT_EQ(scheduler.running(), 0);
  EXPECT_EQ(scheduler.mean_cost(), absl::ZeroDuration());
}

TEST(BatchesTest, WorkWithoutKeyRunsAlone) {
  Scheduler scheduler({});
  Submit(scheduler, 1, 0);
  Submit(scheduler, 2, 0);
  const Scheduler::Dispatch dispatch = scheduler.Next(At(0));
  EXPECT_THAT(dispatch.run, ElementsAre(1));
  EXPECT_EQ(dispatch.reason, BatchReason::kAlone);
}

TEST(BatchesTest, LeavesOutWhatDoesNotFit) {
  Scheduler scheduler({.max_batch = 8});
  Submit(scheduler, 1, kKeyA, 5);
  Submit(scheduler, 2, kKeyA, 4);
  const Scheduler::Dispatch dispatch = scheduler.Next(At(0));
  EXPECT_THAT(dispatch.run, ElementsAre(1));
  EXPECT_EQ(dispatch.reason, BatchReason::kFull);
  scheduler.Done(1, absl::Milliseconds(1), At(1));
  EXPECT_THAT(scheduler.Next(At(1)).run, ElementsAre(2));
}

TEST(BatchesTest, LargerItemThanABatchRunsAlone) {
  Scheduler scheduler({.max_batch = 8});
  Submit(scheduler, 1, kKeyA, 20);
  Submit(scheduler, 2, kKeyA, 1);
  EXPECT_THAT(scheduler.Next(At(0)).run, ElementsAre(1));
}

TEST(BatchesTest, WaitsForMoreUntilTheDelayIsOver) {
  Scheduler scheduler({.max_delay = absl::Milliseconds(5)});
  Submit(scheduler, 1, kKeyA, 1, 0);
  Submit(scheduler, 2, kKeyA, 1, 3);
  const Scheduler::Dispatch early = scheduler.Next(At(3));
  EXPECT_THAT(early.run, IsEmpty());
  EXPECT_EQ(early.wake, At(5));
  const Scheduler::Dispatch due = scheduler.Next(At(5));
  EXPECT_THAT(due.run, ElementsAre(1, 2));
  EXPECT_EQ(due.reason, BatchReason::kDelay);
}

TEST(BatchesTest, FullBatchDoesNotWait) {
  Scheduler scheduler({.max_batch = 2, .max_delay = absl::Milliseconds(5)});
  Submit(scheduler, 1, kKeyA);
  EXPECT_THAT(scheduler.Next(At(0)).run, IsEmpty());
  Submit(scheduler, 2, kKeyA);
  const Scheduler::Dispatch dispatch = scheduler.Next(At(0));
  EXPECT_THAT(dispatch.run, ElementsAre(1, 2));
  EXPECT_EQ(dispatch.reason, BatchReason::kFull);
}

TEST(BatchesTest, OtherWorkPassesWhatWaitsForMore) {
  Scheduler scheduler({.max_delay = absl::Milliseconds(5)});
  Submit(scheduler, 1, kKeyA);
  Submit(scheduler, 2, 0);
  EXPECT_THAT(scheduler.Next(At(0)).run, ElementsAre(2));
  EXPECT_THAT(scheduler.Next(At(5)).run, ElementsAre(1));
}

TEST(BatchesTest, CancelledItemLeavesItsBatch) {
  Scheduler scheduler({});
  Submit(scheduler, 1, kKeyA);
  Submit(scheduler, 2, kKeyA);
  Submit(scheduler, 3, kKeyA);
  EXPECT_TRUE(scheduler.Cancel(2));
  EXPECT_THAT(scheduler.Next(At(0)).run, ElementsAre(1, 3));
  EXPECT_FALSE(scheduler.Cancel(3));
}

TEST(BatchesTest, RefusesIdThatRunsInABatch) {
  Scheduler scheduler({});
  Submit(scheduler, 1, kKeyA);
  Submit(scheduler, 2, kKeyA);
  EXPECT_THAT(scheduler.Next(At(0)).run, ElementsAre(1, 2));
  EXPECT_THAT(scheduler.Submit({.id = 2}, At(0)),
              StatusIs(absl::StatusCode::kAlreadyExists));
}

TEST(BatchesTest, RefusesItemOverTheLimitOfItsFlow) {
  Scheduler scheduler({.max_queued_by_flow = 2});
  Submit(scheduler, 1, 0, 1, 0, "x");
  Submit(scheduler, 2, 0, 1, 0, "x");
  Submit(scheduler, 3, 0, 1, 0, "y");
  EXPECT_THAT(
      scheduler.Submit({.id = 4, .flow = {"local", "x"}}, At(0)),
      StatusIs(absl::StatusCode::kResourceExhausted,
               ::testing::HasSubstr("2 calls of this run wait for the device, "
                                    "the limit is 2")));
  EXPECT_EQ(scheduler.queued({"local", "x"}), 2);
}

TEST(BatchesTest, TellsHowLongAllThatWaitsWillTake) {
  Scheduler scheduler({});
  for (uint64_t id = 1; id <= 100; ++id) {
    Submit(scheduler, id, 0);
    ASSERT_THAT(scheduler.Next(At(0)).run, ElementsAre(id));
    scheduler.Done(id, absl::Milliseconds(10), At(0));
  }
  EXPECT_EQ(scheduler.Backlog(), absl::ZeroDuration());
  Submit(scheduler, 101, 0);
  Submit(scheduler, 102, 0);
  EXPECT_GT(scheduler.Backlog(), absl::Milliseconds(19));
  EXPECT_LT(scheduler.Backlog(), absl::Milliseconds(21));
}

}  // namespace
}  // namespace backboned
