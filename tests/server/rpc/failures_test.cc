// Tests failures on the device, and concurrent calls.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST(FailuresTest, LibTorchsFailureIsInternalAndChangesNothing) {
  TestServer server;
  PlainClient client(server);
  server.OnForward([] { throw std::runtime_error("broken"); });
  v1::ForwardHeader training = TapedForwardOf(2);
  training.set_training(true);
  EXPECT_THAT(
      client.Forward(training, Ones(8)),
      FailsWith(absl::StatusCode::kInternal, v1::ERROR_REASON_COMPUTE_FAILED,
                AllOf(HasSubstr("its log has the cause as failure"),
                      Not(HasSubstr("broken")))));
  EXPECT_EQ(VersionOf(server).buffers(), 1U);
  EXPECT_EQ(server.tape_count(), 0);
  EXPECT_EQ(server.in_flight_bytes(), 0);
  server.OnForward({});
  EXPECT_THAT(client.Forward(training, Ones(8)), IsOk());
}

// R10
TEST(FailuresTest, MissingMemoryIsResourceExhausted) {
  TestServer server;
  PlainClient client(server);
  server.OnForward([] { throw std::bad_alloc(); });
  EXPECT_THAT(
      client.Forward(TapedForwardOf(2), Ones(8)),
      FailsWith(absl::StatusCode::kResourceExhausted,
                v1::ERROR_REASON_OUT_OF_MEMORY, HasSubstr("out of memory")));
  EXPECT_EQ(server.tape_count(), 0);
  EXPECT_EQ(server.in_flight_bytes(), 0);
  server.OnForward({});
  EXPECT_THAT(client.Forward(TapedForwardOf(2), Ones(8)), IsOk());
}

TEST(FailuresTest, AFailedBackwardUsesTheTapeUpAndAddsNothing) {
  TestServer server;
  PlainClient client(server);
  v1::BackwardHeader header = BackwardOf(
      client.Forward(TapedForwardOf(1), Ones(4))->header.tape_id(), 1);
  header.set_accumulate(true);
  server.OnBackward([] { throw std::runtime_error("broken"); });
  EXPECT_THAT(
      client.Backward(header, Ones(4)),
      FailsWith(absl::StatusCode::kInternal, v1::ERROR_REASON_COMPUTE_FAILED,
                HasSubstr("its log has the cause")));
  EXPECT_EQ(server.tape_count(), 0);
  v1::GetGradsRequest request;
  request.set_allow_absent(true);
  EXPECT_THAT(client.GetGrads(request)->bytes, IsEmpty());
}

// R2
TEST(ConcurrencyTest, EachReadIsOneVersionAlsoUnderWriters) {
  constexpr int64_t kSize = 1 << 16;  // Four parameters of 256 KiB.
  TestServer server({.size = kSize});
  std::vector<std::thread> threads;
  for (int writer = 0; writer < 3; ++writer) {
    threads.emplace_back([&, writer] {
      PlainClient client(server);
      for (int i = 0; i < 4; ++i) {
        const std::string values = Bytes(std::vector<float>(
            4 * kSize, static_cast<float>(10 * writer + i + 10)));
        EXPECT_THAT(client.SetParams(SetParamsOf(4 * kSize), values), IsOk());
      }
    });
  }
  for (int reader = 0; reader < 3; ++reader) {
    threads.emplace_back([&] {
      PlainClient client(server);
      uint64_t version = 0;
      for (int i = 0; i < 4; ++i) {
        const auto read = client.GetParams();
        ASSERT_THAT(read, IsOk());
        EXPECT_GE(read->header.version().params(), version);
        version = read->header.version().params();
        const std::vector<float> values = Floats(read->bytes);
        if (version == 1) continue;
        EXPECT_EQ(values, std::vector<float>(values.size(), values[0]));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(VersionOf(server).params(), 13U);
}

// Waits until `queued` items wait for the device.
void WaitForQueue(PlainClient& client, int64_t queued) {
  while (client.GetServer()->devices(0).queued() < queued) {
    std::this_thread::yield();
  }
}

TEST(ConcurrencyTest, AForwardInTheLaneFreezesWhatIsFrozenWhenItRuns) {
  TestServer server;
  PlainClient client(server);
  absl::Notification started;
  absl::Notification released;
  server.OnForward([&] {
    if (started.HasBeenNotified()) return;
    started.Notify();
    released.WaitForNotification();
  });
  std::thread blocker([&] {
    EXPECT_THAT(PlainClient(server).Forward(ForwardOf(1), Ones(4)), IsOk());
  });
  started.WaitForNotification();
  std::thread update([&] {
    v1::UpdateInstanceRequest request;
    request.set_instance("fake");
    request.mutable_settings()->add_frozen("scale");
    request.mutable_update_mask()->add_paths("frozen");
    EXPECT_THAT(PlainClient(server).UpdateInstance(request), IsOk());
  });
  WaitForQueue(client, 1);
  std::string tape;
  std::thread training([&] {
    v1::ForwardHeader header = TapedForwardOf(2);
    header.set_training(true);
    tape = PlainClient(server).Forward(header, Ones(8))->header.tape_id();
  });
  WaitForQueue(client, 2);
  released.Notify();
  for (std::thread* thread : {&blocker, &update, &training}) thread->join();
  v1::BackwardHeader backward = BackwardOf(tape, 2);
  backward.set_accumulate(true);
  ASSERT_THAT(client.Backward(backward, Ones(8)), IsOk());
  v1::GetGradsRequest grads;
  grads.mutable_selection()->add_globs("head");
  EXPECT_THAT(client.GetGrads(grads), IsOk());
  grads.mutable_selection()->set_globs(0, "scale");
  EXPECT_THAT(client.GetGrads(grads),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_NO_GRADIENTS, HasSubstr("scale")));
}

// R3
TEST(ConcurrencyTest, CompareAndSetLosesNoUpdate) {
  TestServer server;
  ASSERT_THAT(PlainClient(server).SetParams(SetParamsOf(kElements),
                                            std::string(kElements * 4, '\0')),
              IsOk());
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 16; ++writer) {
    writers.emplace_back([&] {
      PlainClient client(server);
      absl::Status written;
      do {
        const auto read = client.GetParams();
        ASSERT_THAT(read, IsOk());
        v1::SetParamsHeader header = SetParamsOf(kElements);
        header.mutable_if_version()->set_uid(read->header.version().uid());
        header.mutable_if_version()->set_params(
            read->header.version().params());
        const float value = Floats(read->bytes)[0] + 1;
        written =
            client
                .SetParams(header, Bytes(std::vector<float>(kElements, value)))
                .status();
        if (!written.ok()) {
          ASSERT_EQ(client::ReasonOf(written), v1::ERROR_REASON_STALE_VERSION);
        }
      } while (!written.ok());
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(PlainClient(server).GetParams()->bytes,
            Bytes(std::vector<float>(kElements, 16)));
}

}  // namespace
}  // namespace backboned
