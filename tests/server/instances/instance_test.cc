#include "server/instances/instance.h"

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <set>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "backbones/initial_draw.h"
#include "base/errors.h"
#include "base/task.h"
#include "tests/testing/fake_architecture.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

class InstanceTest : public ::testing::Test {
 protected:
  DeviceWorker::Request InLane() const { return {.lane = instance_.lane()}; }

  // Sets every element of every parameter to `value`.
  absl::StatusOr<StatePtr> Write(float value,
                                 const VersionCondition& condition = {}) {
    return BlockOn(
        instance_.Commit(InLane(), condition, [value](const State& state) {
          State next = state;
          for (at::Tensor& tensor : next.params) {
            tensor = at::full(tensor.sizes(), value, at::kFloat);
          }
          ++next.params_version;
          return std::make_shared<const State>(std::move(next));
        }));
  }

  // Returns the values of a state's parameters.
  static std::set<float> ValuesOf(const State& state) {
    std::set<float> values;
    for (const at::Tensor& tensor : state.params) {
      const float* data = tensor.const_data_ptr<float>();
      values.insert(data, data + tensor.numel());
    }
    return values;
  }

  // Expects that nothing has changed.
  void ExpectUnchanged(const StatePtr& before) {
    EXPECT_EQ(instance_.state(), before);
    EXPECT_EQ(instance_.counters().writes, 0);
    EXPECT_THAT(Write(1), IsOk());
  }

  DeviceWorker worker_{c10::Device(c10::DeviceType::CPU), 1, {}};
  DeviceWorker chores_{c10::Device(c10::DeviceType::CPU), 1, {}};
  std::shared_ptr<const FakeArchitecture> architecture_ =
      std::make_shared<const FakeArchitecture>(64);
  Instance instance_{
      {.name = "net", .owner = "anna"},
      architecture_,
      worker_,
      InitialState(architecture_->layout(), SeededGenerator(0), at::kCPU)};
};

// R2
TEST_F(InstanceTest, SleepsOnlyOnceTheDiskHasItsState) {
  const StatePtr first = instance_.state();
  EXPECT_FALSE(instance_.Sleep(first));
  instance_.MarkSaved(first);
  ASSERT_THAT(Write(1), IsOk());
  EXPECT_FALSE(instance_.Sleep(first));
  const StatePtr second = instance_.state();
  EXPECT_FALSE(instance_.Sleep(second));
  instance_.MarkSaved(second);
  ASSERT_TRUE(instance_.Sleep(second));
  EXPECT_FALSE(instance_.Sleep(instance_.state()));
}

TEST_F(InstanceTest, IsAsleepInItsVersionAndShapes) {
  ASSERT_THAT(Write(1), IsOk());
  const StatePtr awake = instance_.state();
  instance_.MarkSaved(awake);
  ASSERT_TRUE(instance_.Sleep(awake));
  const StatePtr asleep = instance_.state();
  EXPECT_TRUE(IsMeta(*asleep));
  EXPECT_TRUE(instance_.IsSaved(asleep));
  EXPECT_EQ(asleep->params_version, awake->params_version);
  EXPECT_EQ(asleep->buffers_version, awake->buffers_version);
  ASSERT_EQ(asleep->params.size(), awake->params.size());
  EXPECT_EQ(asleep->params[0].sizes(), awake->params[0].sizes());
  instance_.Awake(asleep, awake);
  EXPECT_EQ(instance_.state(), awake);
  EXPECT_TRUE(instance_.IsSaved(awake));
  instance_.Awake(asleep, asleep);  // Too late.
  EXPECT_EQ(instance_.state(), awake);
}

TEST_F(InstanceTest, EachReadIsOneVersionAlsoUnderWriters) {
  constexpr int kWriters = 4;
  constexpr int kWrites = 50;
  ASSERT_THAT(Write(0), IsOk());
  std::atomic<int> last_id = 0;
  std::atomic<int> writing = kWriters;
  std::vector<std::thread> threads;
  for (int i = 0; i < kWriters; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < kWrites; ++k) {
        EXPECT_THAT(Write(static_cast<float>(++last_id)), IsOk());
      }
      --writing;
    });
  }
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      uint64_t version = 0;
      do {
        const StatePtr state = instance_.state();
        EXPECT_EQ(ValuesOf(*state).size(), 1U);
        EXPECT_GE(state->params_version, version);
        version = state->params_version;
      } while (writing > 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(instance_.state()->params_version, 2U + kWriters * kWrites);
}

// R3
TEST_F(InstanceTest, CompareAndSetLosesNoUpdate) {
  constexpr int kWriters = 16;
  constexpr int kIncrements = 4;
  ASSERT_THAT(Write(0), IsOk());
  std::vector<std::thread> writers;
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back([&] {
      for (int done = 0; done < kIncrements;) {
        const StatePtr seen = instance_.state();
        const absl::Status written =
            Write(*ValuesOf(*seen).begin() + 1,
                  {.uid = instance_.uid(), .params = seen->params_version})
                .status();
        if (written.ok()) {
          ++done;
        } else {
          EXPECT_EQ(ReasonOf(written), Reason::kStaleVersion) << written;
        }
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(ValuesOf(*instance_.state()),
            std::set<float>({float{kWriters * kIncrements}}));
}

TEST_F(InstanceTest, RefusesAStaleVersionWithBothNumbers) {
  const StatePtr before = instance_.state();
  const auto expect_stale = [&](const VersionCondition& condition,
                                const std::string& message) {
    const absl::Status status = Write(9, condition).status();
    EXPECT_THAT(status,
                StatusIs(absl::StatusCode::kAborted, HasSubstr(message)));
    EXPECT_EQ(ReasonOf(status), Reason::kStaleVersion);
  };
  expect_stale(
      {.uid = "other"},
      "if_version has uid \"other\", the instance has \"" + instance_.uid());
  expect_stale({.params = 7}, "if_version has params 7, the instance has 1;");
  expect_stale({.params = 1, .buffers = 0},
               "if_version has buffers 0, the instance has 1;");
  ExpectUnchanged(before);
}

TEST_F(InstanceTest, RefusesWritesOnceItIsDeleted) {
  const StatePtr before = instance_.state();
  instance_.MarkDeleted();
  const absl::Status status = Write(9).status();
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("deleted")));
  EXPECT_EQ(ReasonOf(status), Reason::kInstanceNotFound);
  EXPECT_EQ(instance_.state(), before);
}

// R1
TEST_F(InstanceTest, KeepsItsStateWhenTheNextCannotBeMade) {
  const StatePtr before = instance_.state();
  EXPECT_THAT(
      BlockOn(instance_.Commit(InLane(), {},
                               [](const State&) -> absl::StatusOr<StatePtr> {
                                 return absl::DataLossError("lost");
                               })),
      StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(
      BlockOn(instance_.Commit(InLane(), {},
                               [](const State&) -> absl::StatusOr<StatePtr> {
                                 throw std::runtime_error("odd");
                               })),
      StatusIs(absl::StatusCode::kInternal));
  DeviceWorker::Request late = InLane();
  late.deadline = absl::InfinitePast();
  EXPECT_THAT(
      BlockOn(instance_.Commit(late, {},
                               [](const State& state) {
                                 return std::make_shared<const State>(state);
                               })),
      StatusIs(absl::StatusCode::kDeadlineExceeded));
  ExpectUnchanged(before);
}

TEST_F(InstanceTest, DigestSpeaksOfTheStateThatItIsGiven) {
  const StatePtr first = instance_.state();
  const std::string digest =
      *BlockOn(instance_.Digest(chores_, InLane(), first));
  EXPECT_EQ(digest.size(), 64U);
  ASSERT_THAT(Write(5), IsOk());
  EXPECT_NE(*BlockOn(instance_.Digest(chores_, InLane(), instance_.state())),
            digest);
  EXPECT_EQ(*BlockOn(instance_.Digest(chores_, InLane(), first)), digest);
}

TEST_F(InstanceTest, ThoseWhoAskForOneDigestShareOneComputation) {
  // A turn takes one parameter.
  const auto architecture = std::make_shared<const FakeArchitecture>(2 << 20);
  const auto initial = [&] {
    return InitialState(architecture->layout(), SeededGenerator(0), at::kCPU);
  };
  const auto turns = [this] {
    const auto batches = chores_.batch_figures().batches;
    return std::accumulate(batches.begin(), batches.end(), int64_t{0});
  };
  Instance alone({.name = "a"}, architecture, worker_, initial());
  const std::string expected =
      *BlockOn(alone.Digest(chores_, {}, alone.state()));
  const int64_t turns_alone = turns();
  EXPECT_GT(turns_alone, 3);

  Instance shared({.name = "b"}, architecture, worker_, initial());
  absl::Notification started;
  absl::Notification released;
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    EXPECT_THAT(BlockOn(chores_.Run({},
                                    [&] {
                                      started.Notify();
                                      released.WaitForNotification();
                                      return absl::OkStatus();
                                    })),
                IsOk());
  });
  started.WaitForNotification();
  for (int64_t i = 1; i <= 2; ++i) {
    threads.emplace_back([&] {
      EXPECT_THAT(BlockOn(shared.Digest(chores_, {}, shared.state())),
                  IsOkAndHolds(expected));
    });
    while (chores_.queued() < i) std::this_thread::yield();
  }
  released.Notify();
  for (std::thread& thread : threads) thread.join();
  // The blocker's turn, and the last caller's, which finds the result.
  EXPECT_EQ(turns() - turns_alone, turns_alone + 2);
  EXPECT_THAT(BlockOn(shared.Digest(chores_, {}, shared.state())),
              IsOkAndHolds(expected));
  EXPECT_EQ(turns() - turns_alone, turns_alone + 2);
}

TEST_F(InstanceTest, ADigestGoesOnWhenOneOfThoseWhoAskLeaves) {
  absl::Notification started;
  absl::Notification released;
  std::thread blocker([&] {
    EXPECT_THAT(BlockOn(chores_.Run({},
                                    [&] {
                                      started.Notify();
                                      released.WaitForNotification();
                                      return absl::OkStatus();
                                    })),
                IsOk());
  });
  started.WaitForNotification();
  const StatePtr state = instance_.state();
  std::thread stays([&] {
    EXPECT_THAT(BlockOn(instance_.Digest(chores_, {}, state)), IsOk());
  });
  while (chores_.queued() == 0) std::this_thread::yield();
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THAT(
      BlockOn(instance_.Digest(chores_, {.stop = stop.get_token()}, state)),
      StatusIs(absl::StatusCode::kCancelled));
  released.Notify();
  blocker.join();
  stays.join();
}

TEST_F(InstanceTest, HasAUidAndALaneOfItsOwn) {
  const Instance other({.name = "net", .owner = "anna"}, architecture_, worker_,
                       instance_.state());
  EXPECT_NE(other.uid(), instance_.uid());
  EXPECT_NE(other.lane(), instance_.lane());
  EXPECT_EQ(other.FullName(), "anna/net");
}

}  // namespace
}  // namespace backboned
