// Steps the wall clock while the server works.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/server/rpc/plain_client.h"
#include "tests/testing/wall_clock.h"

namespace backboned {
namespace {

// A server that keeps things for a session, with a forward that runs and one
// that waits, both with a deadline in a minute.
class ClockTest : public ::testing::Test {
 protected:
  ClockTest() {
    server_.OnForward([this] {
      if (started_.HasBeenNotified()) return;
      started_.Notify();
      released_.WaitForNotification();
    });
  }

  void ForwardWithDeadline() {
    RawCall call(server_.channel(), "Forward",
                 {.metadata = {{"backboned-session", "other"}}});
    call.Send(Message(ForwardOf(1), 0, Ones(4)));
    EXPECT_THAT(call.End(), IsOk());
  }

  absl::Notification started_;
  absl::Notification released_;
  TestServer server_;
};

TEST_F(ClockTest, StepsOfTheWallClockEndNothing) {
  PlainClient client(server_, "s");
  v1::CreateInstanceRequest request;
  request.set_benchmark("seq-mnist");
  request.set_request_id("once");
  ASSERT_THAT(client.CreateInstance(request), IsOk());
  std::thread runs([&] { ForwardWithDeadline(); });
  started_.WaitForNotification();
  std::thread waits([&] { ForwardWithDeadline(); });
  while (client.GetServer()->devices(0).queued() < 1) std::this_thread::yield();
  for (const absl::Duration step :
       {absl::Hours(1), -absl::Hours(2), absl::Hours(1)}) {
    StepWallClock(step);
    server_.SweepAfter(absl::ZeroDuration());
    EXPECT_THAT(client.CreateInstance(request), IsOk());  // A retry.
    EXPECT_EQ(client.ListInstances()->instances_size(), 2) << step;
  }
  released_.Notify();
  runs.join();
  waits.join();
}

}  // namespace
}  // namespace backboned
