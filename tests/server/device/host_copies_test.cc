#include "server/device/host_copies.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <stop_token>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/task.h"
#include "server/device/device_worker.h"
#include "server/device/host_view.h"
#include "tests/server/devices.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

// On a GPU where there is one, as the fake one.
class HostCopiesTest : public ::testing::Test {
 protected:
  static constexpr int64_t kInATurn = int64_t{1} << 20;  // Floats.

  // Returns 0, 1, ... on the device.
  at::Tensor Count(int64_t count, at::ScalarType dtype = at::kFloat) {
    at::Tensor there;
    const DeviceWorker::Work move = [&] {
      there = OnDevice(at::arange(count, dtype), worker_.device());
      return absl::OkStatus();
    };
    EXPECT_THAT(BlockOn(worker_.copies().Run({}, move)), IsOk());
    return there;
  }

  // Returns each turn's values, one behind another in float64.
  std::vector<at::Tensor> Drain(HostCopies& copies) {
    std::vector<at::Tensor> turns;
    while (true) {
      absl::StatusOr<std::vector<at::Tensor>> turn = BlockOn(copies.Next());
      EXPECT_THAT(turn, IsOk());
      if (!turn.ok() || turn->empty()) return turns;
      for (at::Tensor& part : *turn) {
        EXPECT_TRUE(part.is_cpu() && part.is_contiguous());
        bytes_ += static_cast<int64_t>(part.nbytes());
        part = part.to(at::kDouble);
      }
      turns.push_back(at::cat(*turn));
    }
  }

  DeviceWorker worker_{Devices().front(), /*threads=*/1, {.max_queued = 8}};
  int64_t bytes_ = 0;  // Of what Drain got.
};

TEST_F(HostCopiesTest, BringsTensorsOfAllSizesInTurns) {
  const at::Tensor none = at::empty({0});
  HostCopies copies(worker_, {},
                    {Count(3), none, at::Tensor(), Count(2 * kInATurn + 5),
                     Count(7, at::kLong), Count(1).squeeze()},
                    std::nullopt);
  EXPECT_EQ(copies.bytes(), 4 * (3 + 2 * kInATurn + 5 + 1) + 8 * 7);
  const std::vector<at::Tensor> turns = Drain(copies);
  EXPECT_EQ(turns.size(), 3);
  EXPECT_EQ(bytes_, copies.bytes());
  EXPECT_TRUE(at::cat(turns).equal(at::cat(
      {at::arange(3, at::kDouble), at::arange(2 * kInATurn + 5, at::kDouble),
       at::arange(7, at::kDouble), at::arange(1, at::kDouble)})));
}

TEST_F(HostCopiesTest, ConvertsOnTheWay) {
  HostCopies copies(worker_, {}, {Count(kInATurn)}, at::kDouble);
  EXPECT_EQ(copies.bytes(), 8 * kInATurn);
  const std::vector<at::Tensor> turns = Drain(copies);
  EXPECT_EQ(turns.size(), 2);
  EXPECT_EQ(bytes_, copies.bytes());
  EXPECT_TRUE(at::cat(turns).equal(at::arange(kInATurn, at::kDouble)));
}

TEST_F(HostCopiesTest, ThereMayBeNothingToBring) {
  HostCopies copies(worker_, {}, {at::Tensor()}, std::nullopt);
  EXPECT_EQ(copies.bytes(), 0);
  EXPECT_THAT(Drain(copies), ::testing::IsEmpty());
}

TEST_F(HostCopiesTest, EndsWithItsCaller) {
  std::stop_source stop;
  HostCopies copies(worker_, {.stop = stop.get_token()}, {Count(4 * kInATurn)},
                    std::nullopt);
  EXPECT_THAT(BlockOn(copies.Next()),
              IsOk());  // The second one may have begun.
  stop.request_stop();
  absl::Status ended;
  for (int turn = 1; turn < 4 && ended.ok(); ++turn) {
    ended = BlockOn(copies.Next()).status();
  }
  EXPECT_THAT(ended, StatusIs(absl::StatusCode::kCancelled));
}

TEST_F(HostCopiesTest, AGpusCopiesWaitForNoWork) {
  if (worker_.device().is_cpu()) GTEST_SKIP() << "a CPU copies nothing";
  HostCopies copies(worker_, {}, {Count(3)}, std::nullopt);
  absl::Notification copied;
  const DeviceWorker::Work work = [&] {
    EXPECT_TRUE(copied.WaitForNotificationWithTimeout(absl::Seconds(30)));
    return absl::OkStatus();
  };
  const auto run = [&]() -> Detached {
    const DeviceWorker::Request request;
    const auto times = co_await worker_.Run(request, work);
    EXPECT_THAT(times, IsOk());
  };
  run();
  EXPECT_THAT(Drain(copies), ::testing::SizeIs(1));
  copied.Notify();
  const DeviceWorker::Work nothing = [] { return absl::OkStatus(); };
  EXPECT_THAT(BlockOn(worker_.Run({}, nothing)), IsOk());  // Behind the work.
}

}  // namespace
}  // namespace backboned
