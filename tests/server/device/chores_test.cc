#include "server/device/chores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/task.h"
#include "server/limits/memory_account.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::UnorderedElementsAre;

class ChoresTest : public ::testing::Test {
 protected:
  DeviceWorker chores_{
      c10::Device(c10::DeviceType::CPU), /*threads=*/1, {.max_queued = 1}};
};

TEST_F(ChoresTest, StepsUntilNothingIsLeft) {
  int steps = 0;
  std::thread::id thread;
  EXPECT_THAT(BlockOn(RunChore(chores_, {},
                               [&]() -> absl::StatusOr<bool> {
                                 thread = std::this_thread::get_id();
                                 return ++steps < 3;
                               })),
              IsOk());
  EXPECT_EQ(steps, 3);
  EXPECT_NE(thread, std::this_thread::get_id());
}

TEST_F(ChoresTest, AnErrorIsTheLastStep) {
  int steps = 0;
  EXPECT_THAT(BlockOn(RunChore(chores_, {},
                               [&]() -> absl::StatusOr<bool> {
                                 ++steps;
                                 return absl::DataLossError("lost");
                               })),
              StatusIs(absl::StatusCode::kDataLoss, "lost"));
  EXPECT_THAT(BlockOn(RunChore(chores_, {},
                               [&]() -> absl::StatusOr<bool> {
                                 ++steps;
                                 throw std::runtime_error("odd");
                               })),
              StatusIs(absl::StatusCode::kInternal));
  EXPECT_EQ(steps, 2);
}

TEST_F(ChoresTest, RunsTakeTurns) {
  std::vector<std::string> order;
  std::thread other;
  const auto step = [&](const std::string& name, int& left) {
    order.push_back(name);
    return --left > 0;
  };
  int mine = 3;
  int theirs = 2;
  EXPECT_THAT(BlockOn(RunChore(chores_, {.run = "a"},
                               [&]() -> absl::StatusOr<bool> {
                                 if (order.empty()) {
                                   other = std::thread([&] {
                                     EXPECT_THAT(
                                         BlockOn(RunChore(
                                             chores_, {.run = "b"},
                                             [&]() -> absl::StatusOr<bool> {
                                               return step("b", theirs);
                                             })),
                                         IsOk());
                                   });
                                   while (chores_.queued() == 0) {
                                     std::this_thread::yield();
                                   }
                                 }
                                 return step("a", mine);
                               })),
              IsOk());
  other.join();
  ASSERT_THAT(order, UnorderedElementsAre("a", "a", "a", "b", "b"));
  EXPECT_EQ(order[1], "b");
}

TEST_F(ChoresTest, NobodyStepsForOneWhoHasGone) {
  std::stop_source stop;
  int steps = 0;
  EXPECT_THAT(BlockOn(RunChore(chores_, {.stop = stop.get_token()},
                               [&]() -> absl::StatusOr<bool> {
                                 ++steps;
                                 stop.request_stop();
                                 return true;
                               })),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(steps, 1);
  EXPECT_EQ(chores_.queued(), 0);
}

TEST_F(ChoresTest, AStepIsPaidByItsCaller) {
  const auto account = std::make_shared<MemoryAccount>("a");
  std::shared_ptr<MemoryAccount> pays;
  EXPECT_THAT(BlockOn(RunChore(chores_, {.account = account},
                               [&]() -> absl::StatusOr<bool> {
                                 pays = ScopedAccount::Current();
                                 return false;
                               })),
              IsOk());
  EXPECT_EQ(pays, account);
}

TEST_F(ChoresTest, AChoreIsNoWorkOfADevice) {
  const auto meter = std::make_shared<WorkMeter>();
  EXPECT_THAT(BlockOn(RunChore(chores_, {.meter = meter},
                               []() -> absl::StatusOr<bool> { return false; })),
              IsOk());
  EXPECT_GT(chores_.busy(), absl::ZeroDuration());
  EXPECT_EQ(meter->time(), absl::ZeroDuration());
}

}  // namespace
}  // namespace backboned
