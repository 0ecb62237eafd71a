// Tests limits, and clients that vanish, dawdle or come at the wrong time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/server/rpc/plain_client.h"
#include "tests/testing/test_clock.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

// A server whose device is busy with a forward of `fake`, until Release.
class BusyServer {
 public:
  explicit BusyServer(const TestServerOptions& options = {})
      : server_(options) {
    server_.OnForward([this] {
      started_.Notify();
      released_.WaitForNotification();
    });
    call_ = std::thread([channel = server_.channel()] {
      EXPECT_THAT(PlainClient(channel).Forward(ForwardOf(1), Ones(4)).status(),
                  IsOk());
    });
    started_.WaitForNotification();
    server_.OnForward({});
  }
  ~BusyServer() { Release(); }

  // Returns once its forward has succeeded.
  void Release() {
    if (!call_.joinable()) return;
    released_.Notify();
    call_.join();
  }

  TestServer& operator*() { return server_; }
  TestServer* operator->() { return &server_; }

 private:
  absl::Notification started_;
  absl::Notification released_;
  TestServer server_;
  std::thread call_;
};

// Returns the bytes of a tape of this forward of ones.
int64_t TapeBytesOf(const v1::ForwardHeader& header) {
  TestServer server;
  const std::string ones =
      Ones(header.inputs(0).shape(0) * header.inputs(0).shape(1));
  return PlainClient(server).Forward(header, ones)->header.tape_bytes();
}

// Returns once `count` items wait for the device, which they must soon.
void WaitUntilQueued(TestServer& server, int64_t count) {
  PlainClient client(server);
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (client.GetServer()->devices(0).queued() < count) {
    ASSERT_LT(absl::Now(), deadline) << count << " are not queued";
    absl::SleepFor(absl::Milliseconds(1));
  }
}

// R3
TEST(LimitsTest, DeletionOfAVersionComesBehindTheWritesBeforeIt) {
  BusyServer server;
  std::thread write([&] {
    v1::SetParamsHeader header;
    *header.mutable_spec() = FloatSpec({kElements});
    EXPECT_THAT(PlainClient(*server).SetParams(header, Ones(kElements)),
                IsOk());
  });
  WaitUntilQueued(*server, 1);
  std::thread remove([&] {
    v1::DeleteInstanceRequest request;
    request.mutable_if_version()->set_params(1);
    EXPECT_THAT(
        PlainClient(*server).DeleteInstance(request),
        FailsWith(absl::StatusCode::kAborted, v1::ERROR_REASON_STALE_VERSION,
                  HasSubstr("has params 1, the")));
  });
  WaitUntilQueued(*server, 2);
  server.Release();
  write.join();
  remove.join();
  EXPECT_EQ(VersionOf(*server).params(), 2);
}

// R5
TEST(LimitsTest, RefusesTapesOverTheirCount) {
  TestServer server({.limits = {.max_tapes = 1, .quotas = {}}});
  PlainClient client(server);
  ASSERT_THAT(client.Forward(TapedForwardOf(2), Ones(8)), IsOk());
  v1::ForwardHeader training = TapedForwardOf(2);
  training.set_training(true);
  EXPECT_THAT(client.Forward(training, Ones(8)), RefusedBy("max-tapes", 1));
  EXPECT_EQ(VersionOf(server).buffers(), 1U);
  EXPECT_EQ(server.tape_count(), 1);
  EXPECT_EQ(server.in_flight_bytes(), 0);
  training.set_tape(false);
  EXPECT_THAT(client.Forward(training, Ones(8)), IsOk());
}

// R5
TEST(LimitsTest, RefusesTapesOverTheirBytesBeforeBuffersMove) {
  TestServer server({.limits = {.max_tape_bytes = 16, .quotas = {}}});
  PlainClient client(server);
  v1::ForwardHeader training = TapedForwardOf(8);
  training.set_training(true);
  const auto refused = client.Forward(training, Ones(32));
  EXPECT_THAT(refused, RefusedBy("max-tape-bytes", 16));
  // It will never fit.
  EXPECT_FALSE(client::RetryDelayOf(refused.status()).has_value());
  EXPECT_EQ(VersionOf(server).buffers(), 1U);
  EXPECT_EQ(server.tape_count(), 0);
  EXPECT_EQ(server.tape_bytes(), 0);
  EXPECT_EQ(server.in_flight_bytes(), 0);
  training.set_tape(false);
  EXPECT_THAT(client.Forward(training, Ones(32)), IsOk());
}

// R5
TEST(LimitsTest, RunsAForwardAgainWhoseTapeWasOverTheBytes) {
  const int64_t one_tape = TapeBytesOf(TapedForwardOf(2));
  TestServer server(
      {.limits = {.max_tape_bytes = one_tape + 64, .quotas = {}}});
  PlainClient client(server);
  v1::BackwardHeader backward;
  for (int i = 0; i < 2; ++i) {
    const auto taped = client.Forward(TapedForwardOf(2), Ones(8));
    ASSERT_THAT(taped, IsOk());
    backward.MergeFrom(BackwardOf(taped->header.tape_id(), 2));
  }
  EXPECT_EQ(server.tape_count(), 2);
  EXPECT_LE(server.tape_bytes(), one_tape + 64);
  backward.set_return_grads(true);
  const auto grads = client.Backward(backward, Ones(16));
  ASSERT_THAT(grads, IsOk());
  EXPECT_EQ(grads->bytes,
            Bytes(std::vector<float>{12, 12, 12, 12, 8, 8, 8, 8}));
  EXPECT_EQ(server.forward_count(), 3);
  const v1::InstanceCounters counters =
      client.GetInstance()->instance().counters();
  EXPECT_EQ(counters.forwards(), 2);
  EXPECT_EQ(counters.demoted_tapes(), 1);
  EXPECT_EQ(counters.replayed_forwards(), 1);
  EXPECT_EQ(server.tape_bytes(), 0);
}

// R5
TEST(LimitsTest, RefusesBytesInFlightOverTheirLimit) {
  TestServer server(
      {.limits = {.max_in_flight_bytes = kElements * 4, .quotas = {}}});
  PlainClient client(server);
  RawCall holder(server.channel(), "SetParams");
  holder.Send(Message(SetParamsOf(kElements)));
  // The holder's bytes are taken once its handler ran; until then ours fit.
  absl::Status refused;
  do {
    refused =
        client.SetParams(SetParamsOf(kElements), Ones(kElements)).status();
  } while (refused.ok());
  EXPECT_THAT(refused, RefusedBy("max-in-flight-bytes", kElements * 4));
  const auto detail = client::DetailOf(refused);
  EXPECT_EQ(detail->requested_value(), 2 * kElements * 4);
  EXPECT_TRUE(detail->has_retry_delay());
  EXPECT_THAT(client.Forward(ForwardOf(1), Ones(4)),
              RefusedBy("max-in-flight-bytes", kElements * 4));
  EXPECT_THAT(client.GetParams(), IsOk());  // Reading needs no upload.
  EXPECT_TRUE(holder.Send(Message(0, Ones(kElements))));
  EXPECT_THAT(holder.End(), IsOk());
  EXPECT_THAT(client.SetParams(SetParamsOf(kElements), Ones(kElements)),
              IsOk());
  EXPECT_EQ(server.in_flight_bytes(), 0);
}

// R5
TEST(LimitsTest, RefusesInstancesOverTheirLimit) {
  TestServer server({.limits = {.max_instances = 1, .quotas = {}}});
  PlainClient client(server);
  v1::CreateInstanceRequest request;
  request.set_benchmark("seq-mnist");
  EXPECT_THAT(client.CreateInstance(request), RefusedBy("max-instances", 1));
  ASSERT_THAT(client.DeleteInstance({}), IsOk());
  EXPECT_THAT(client.CreateInstance(request), IsOk());
}

// R5, R11
TEST(LimitsTest, RefusesCallsOverTheirLimit) {
  BusyServer server({.limits = {.max_calls = 1, .quotas = {}}});
  PlainClient client(*server);
  const auto refused = client.GetServer();
  EXPECT_THAT(refused, RefusedBy("max-calls", 1));
  EXPECT_TRUE(client::RetryDelayOf(refused.status()).has_value());
  server.Release();
  server->Settle();
  EXPECT_THAT(PlainClient(*server).GetServer(), IsOk());
}

// R11
TEST(LimitsTest, AClientThatIsRefusedKeepsWhatItsSessionHas) {
  TestClock clock;
  BusyServer server({.limits = {.max_calls = 2,
                                .stall_timeout = absl::Hours(1),
                                .quotas = {}},
                     .clock = &clock});
  PlainClient owner(*server, "owner");
  v1::CreateInstanceRequest unnamed;
  unnamed.set_benchmark("seq-mnist");
  const auto created = owner.CreateInstance(unnamed);
  ASSERT_THAT(created, IsOk());
  {
    RawCall other(server->channel(), "SetParams");
    other.Send(Message(SetParamsOf(kElements)));
    while (owner.GetServer().ok()) {  // Until the other call is inside.
    }
    // Twice as long as two thirds of a session's life.
    for (int i = 0; i < 2; ++i) {
      clock.Advance(absl::Seconds(400));
      EXPECT_THAT(owner.GetServer(), RefusedBy("max-calls", 2));
      server->SweepAfter(absl::ZeroDuration());
    }
  }
  server.Release();
  server->Settle();
  v1::GetInstanceRequest get;
  get.set_instance(created->instance().name());
  EXPECT_THAT(PlainClient(*server, "owner").GetInstance(get), IsOk());
}

// R5, R11
TEST(LimitsTest, OneSessionCannotTakeAllCalls) {
  BusyServer server({.limits = {.max_calls = 4}});
  // The busy call has a session of its own; this one has two calls.
  RawCall first(server->channel(), "SetParams",
                {.metadata = {{"backboned-session", "greedy"}}});
  RawCall second(server->channel(), "SetParams",
                 {.metadata = {{"backboned-session", "greedy"}}});
  first.Send(Message(SetParamsOf(kElements)));
  second.Send(Message(SetParamsOf(kElements)));
  PlainClient greedy(*server, "greedy");
  absl::Status refused;
  do {  // Until both are inside.
    refused = greedy.GetServer().status();
  } while (refused.ok());
  EXPECT_THAT(refused, RefusedBy("max-calls", 2));
  EXPECT_EQ(client::DetailOf(refused)->scope(), v1::LIMIT_SCOPE_SESSION);
  EXPECT_TRUE(client::RetryDelayOf(refused).has_value());
  const auto other = PlainClient(*server, "modest").GetServer();
  ASSERT_THAT(other, IsOk());
  EXPECT_EQ(other->session_usage().calls(), 1);
  EXPECT_EQ(other->principal_usage().calls(), 4);
}

// R5, R11
TEST(LimitsTest, OneSessionCannotTakeAllTapes) {
  TestServer server({.limits = {.max_tapes = 4}});
  PlainClient greedy(server, "greedy");
  ASSERT_THAT(greedy.Forward(TapedForwardOf(2), Ones(8)), IsOk());
  ASSERT_THAT(greedy.Forward(TapedForwardOf(2), Ones(8)), IsOk());
  EXPECT_THAT(greedy.Forward(TapedForwardOf(2), Ones(8)),
              RefusedBy("max-tapes", 2));
  PlainClient modest(server, "modest");
  EXPECT_THAT(modest.Forward(TapedForwardOf(2), Ones(8)), IsOk());
  const auto seen = modest.GetServer();
  ASSERT_THAT(seen, IsOk());
  EXPECT_EQ(seen->session_usage().tapes(), 1);
  EXPECT_EQ(seen->principal_usage().tapes(), 3);
  EXPECT_GT(seen->session_usage().tape_bytes(), 0);
  EXPECT_EQ(seen->limits().session_quota(), 0.5);
  EXPECT_EQ(seen->limits().principal_quota(), 1);
}

// R11
TEST(LimitsTest, SessionsThatLeftNothingKeepNobodyOut) {
  TestServer server({.limits = {.max_sessions = 3, .quotas = {}}});
  for (const char* session : {"a", "b", "c", "d", "e"}) {
    EXPECT_THAT(PlainClient(server, session).GetServer(), IsOk()) << session;
  }
}

// R5, R11
TEST(LimitsTest, ASessionThatLeftSomethingKeepsItsPlace) {
  TestServer server({.limits = {.max_sessions = 2, .quotas = {}}});
  v1::CreateInstanceRequest unnamed;
  unnamed.set_benchmark("seq-mnist");
  ASSERT_THAT(PlainClient(server, "owner").CreateInstance(unnamed), IsOk());
  const auto taped =
      PlainClient(server, "taper").Forward(TapedForwardOf(1), Ones(4));
  ASSERT_THAT(taped, IsOk());
  server.Settle();  // Their calls have ended.
  PlainClient late(server, "late");
  EXPECT_THAT(late.GetServer(), RefusedBy("max-sessions", 2));
  EXPECT_THAT(PlainClient(server, "owner").GetServer(), IsOk());
  // Using the tape up, in whatever session, frees the place.
  ASSERT_THAT(PlainClient(server, "owner")
                  .Backward(BackwardOf(taped->header.tape_id(), 1), Ones(4)),
              IsOk());
  EXPECT_THAT(late.GetServer(), IsOk());
}

// R5, R11
TEST(LimitsTest, OneSessionCannotTakeAllInstances) {
  TestServer server({.limits = {.max_instances = 4}});
  v1::CreateInstanceRequest request;
  request.set_benchmark("seq-mnist");
  PlainClient greedy(server, "greedy");
  ASSERT_THAT(greedy.CreateInstance(request), IsOk());
  ASSERT_THAT(greedy.CreateInstance(request), IsOk());
  EXPECT_THAT(greedy.CreateInstance(request), RefusedBy("max-instances", 2));
  EXPECT_THAT(PlainClient(server, "modest").CreateInstance(request), IsOk());
}

// R5, R11
TEST(LimitsTest, OneSessionCannotTakeAllMemory) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  TestServer server({.limits = {.max_memory_bytes = 4 * kMiB}});
  v1::CreateInstanceRequest request;
  request.set_benchmark("seq-mnist");  // 358,440 bytes.
  PlainClient greedy(server, "greedy");
  absl::Status refused;
  int made = 0;
  for (; refused.ok(); ++made)
    refused = greedy.CreateInstance(request).status();
  EXPECT_THAT(refused, RefusedBy("max-memory-bytes", 2 * kMiB));
  EXPECT_GE(made, 4);
  EXPECT_THAT(PlainClient(server, "modest").CreateInstance(request), IsOk());
  const auto seen = greedy.GetServer();
  ASSERT_THAT(seen, IsOk());
  EXPECT_LE(seen->session_usage().memory_bytes(), 2 * kMiB);
  EXPECT_GT(seen->session_usage().memory_bytes(), kMiB);
}

// R5, R11
TEST(LimitsTest, OneSessionsForwardCannotTakeAllMemory) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  constexpr int64_t kRows = kMiB / 16;  // 1 MiB of input, and of each output.
  TestServer server({.limits = {.max_memory_bytes = 12 * kMiB}});
  PlainClient greedy(server, "greedy");
  const auto forward = [&](int64_t rows) {
    return greedy.Forward(ForwardOf(rows), Ones(4 * rows)).status();
  };
  EXPECT_THAT(forward(kRows), IsOk());
  EXPECT_THAT(forward(7 * kRows), RefusedBy("max-memory-bytes", 6 * kMiB));
  EXPECT_THAT(forward(3 * kRows), RefusedBy("max-memory-bytes", 6 * kMiB))
      << "The input fits, and what is computed does not.";
  EXPECT_THAT(forward(kRows), IsOk());
  EXPECT_LT(greedy.GetServer()->session_usage().memory_bytes(), kMiB / 2);
}

// R5, R11
TEST(LimitsTest, RefusesWorkOverTheQueueLimit) {
  BusyServer server({.limits = {.max_queued = 1, .quotas = {}}});
  PlainClient client(*server);
  std::thread waiting([&] {
    absl::Status status;
    do {
      status = client.Forward(ForwardOf(1), Ones(4)).status();
    } while (absl::IsResourceExhausted(status));
    EXPECT_THAT(status, IsOk());
  });
  // Ours waits until the other one does: it has a deadline.
  absl::Status refused;
  do {
    RawCall call(server->channel(), "Forward",
                 {.timeout = absl::Milliseconds(20)});
    call.Send(Message(ForwardOf(1), 0, Ones(4)));
    refused = call.End();
  } while (absl::IsDeadlineExceeded(refused));
  EXPECT_THAT(refused, RefusedBy("max-queued", 1));
  server.Release();
  waiting.join();
  EXPECT_THAT(client.Forward(ForwardOf(1), Ones(4)), IsOk());
  EXPECT_EQ(server->in_flight_bytes(), 0);
}

// R6
TEST(LimitsTest, WorkOverItsDeadlineNeverStarts) {
  BusyServer server;
  for (const char* method : {"Forward", "SetParams"}) {
    RawCall call(server->channel(), method,
                 {.timeout = absl::Milliseconds(50)});
    if (method == std::string("Forward")) {
      v1::ForwardHeader header = TapedForwardOf(2);
      header.set_training(true);
      call.Send(Message(header, 0, Ones(8)));
    } else {
      call.Send(Message(SetParamsOf(kElements), 0, Ones(kElements)));
    }
    EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  }
  server.Release();
  server->Settle();
  EXPECT_EQ(server->forward_count(), 1);
  EXPECT_EQ(VersionOf(*server).params(), 1U);
  EXPECT_EQ(VersionOf(*server).buffers(), 1U);
  EXPECT_EQ(server->tape_count(), 0);
  EXPECT_EQ(server->in_flight_bytes(), 0);
}

// R6
TEST(LimitsTest, CancelledWorkNeverStarts) {
  BusyServer server;
  const int64_t busy_bytes = server->in_flight_bytes();
  v1::ForwardHeader header = TapedForwardOf(2);
  header.set_training(true);
  RawCall call(server->channel(), "Forward");
  call.Send(Message(header, 0, Ones(8)));
  call.HalfClose();
  while (server->in_flight_bytes() == busy_bytes) std::this_thread::yield();
  call.Cancel();
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kCancelled));
  // The answer comes although the device is busy.
  while (server->in_flight_bytes() > busy_bytes) std::this_thread::yield();
  server.Release();
  server->Settle();
  EXPECT_EQ(server->forward_count(), 1);
  EXPECT_EQ(VersionOf(*server).buffers(), 1U);
  EXPECT_EQ(server->tape_count(), 0);
  EXPECT_EQ(server->in_flight_bytes(), 0);
}

// R7
TEST(LimitsTest, DrainingRefusesNewCallsAndFinishesThoseInside) {
  BusyServer server({.listen = {"127.0.0.1:0"}});
  PlainClient client(*server);
  std::thread drain([&] { server->Drain(); });
  absl::Status refused;
  do {
    refused = client.GetServer().status();
  } while (refused.ok());
  EXPECT_THAT(refused,
              FailsWith(absl::StatusCode::kUnavailable,
                        v1::ERROR_REASON_DRAINING, HasSubstr("shutting down")));
  server.Release();  // Expects that its call succeeds.
  drain.join();
}

// R7
TEST(LimitsTest, CallsThatComeAsTheDrainEndsAreRefusedToo) {
  for (int round = 0; round < 10; ++round) {
    TestServer server({.listen = {"127.0.0.1:0"}});
    absl::Notification called;
    std::thread client([&] {
      PlainClient one(server);
      absl::Status status = one.GetServer().status();
      for (called.Notify(); status.ok();) status = one.GetServer().status();
      EXPECT_THAT(status, FailsWith(absl::StatusCode::kUnavailable,
                                    v1::ERROR_REASON_DRAINING,
                                    HasSubstr("shutting down")));
    });
    called.WaitForNotification();
    server.Drain();
    client.join();
  }
}

// R11
TEST(LimitsTest, EndsAnUploadThatMakesNoProgress) {
  TestServer server({.limits = {.stall_timeout = absl::Milliseconds(100)}});
  for (const char* method :
       {"Forward", "Backward", "SetParams", "SetGrads", "SetBuffers"}) {
    RawCall silent(server.channel(), method);
    EXPECT_EQ(silent.Receive(), std::nullopt);
    EXPECT_THAT(silent.End(), StatusIs(absl::StatusCode::kCancelled)) << method;
  }
  RawCall stalled(server.channel(), "SetParams");
  stalled.Send(Message(SetParamsOf(kElements), 0, "1234"));
  EXPECT_EQ(stalled.Receive(), std::nullopt);
  EXPECT_THAT(stalled.End(), StatusIs(absl::StatusCode::kCancelled));
  RawCall unary(server.channel(), "GetParams");
  EXPECT_EQ(unary.Receive(), std::nullopt);
  EXPECT_THAT(unary.End(), StatusIs(absl::StatusCode::kCancelled));
  server.Settle();
  EXPECT_EQ(VersionOf(server).params(), 1U);
  EXPECT_EQ(server.in_flight_bytes(), 0);
}

// R11
TEST(LimitsTest, EndsAnUploadThatTrickles) {
  TestServer server(
      {.size = 1 << 20, .limits = {.stall_timeout = absl::Milliseconds(100)}});
  RawCall call(server.channel(), "SetParams");
  call.Send(Message(SetParamsOf(4 << 20)));
  int64_t sent = 0;
  while (call.Send(Message(sent, "x"))) {
    ++sent;  // The pace of the trickle, no matter of synchronisation:
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kCancelled));
  server.Settle();
  EXPECT_EQ(server.in_flight_bytes(), 0);
}

// R5, R11
TEST(LimitsTest, AStalledUploadKeepsNobodyElseWaiting) {
  TestServer server;
  RawCall stalled(server.channel(), "SetParams");
  stalled.Send(Message(SetParamsOf(kElements), 0, "1234"));
  PlainClient client(server);
  EXPECT_THAT(client.SetParams(SetParamsOf(kElements), Ones(kElements)),
              IsOk());
  EXPECT_THAT(client.Forward(TapedForwardOf(1), Ones(4)), IsOk());
}

}  // namespace
}  // namespace backboned
