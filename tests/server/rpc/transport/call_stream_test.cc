// Makes many calls in one stream.
#include <gmock/gmock.h>
#include <google/protobuf/util/time_util.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "client/cpp/error.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// Waits until `condition` holds, which must be soon.
void WaitUntil(const std::function<bool()>& condition) {
  const absl::Time end = absl::Now() + absl::Seconds(20);
  while (!condition()) {
    ASSERT_LT(absl::Now(), end);
    absl::SleepFor(absl::Milliseconds(1));
  }
}

// The answer to a call.
struct Got {
  v1::CallsResponse result;  // Its first part, if it succeeded.
  std::string bytes;
  absl::Status status;
  v1::Timings timings;
  int parts = 0;
};

// A client's side of a stream of calls.
class Stream {
 public:
  explicit Stream(const TestServer& server, const std::string& session = "")
      : call_(server.channel(), "Calls",
              session.empty()
                  ? RawCall::Options{}
                  : RawCall::Options{
                        .metadata = {{"backboned-session", session}}}) {}

  // Sends a part.
  void Send(const v1::CallsRequest& part) {
    call_.Send(part.SerializeAsString());
  }

  // Sends bytes of the call `number`.
  void SendChunk(uint64_t number, int64_t offset, std::string_view data) {
    v1::CallsRequest part;
    part.set_call(number);
    part.mutable_chunk()->set_offset(offset);
    part.mutable_chunk()->set_data(std::string(data));
    Send(part);
  }

  // Takes a part; false: there are no more.
  bool Take() {
    const std::optional<std::string> message = call_.Receive();
    if (!message.has_value()) return false;
    v1::CallsResponse part;
    EXPECT_TRUE(part.ParseFromString(*message));
    if (part.notice() != v1::NOTICE_UNSPECIFIED) {
      notices_.push_back(part.notice());
      return true;
    }
    Got& got = got_[part.call()];
    if (++got.parts == 1) got.result = part;
    EXPECT_EQ(part.chunk().offset(),
              part.has_chunk() ? static_cast<int64_t>(got.bytes.size()) : 0);
    got.bytes += part.chunk().data();
    EXPECT_EQ(part.has_timings(), part.has_status());
    if (!part.has_status()) return true;
    got.timings = part.timings();
    ended_.push_back(part.call());
    got.status = client::ToStatus(grpc::Status(
        static_cast<grpc::StatusCode>(part.status().code()),
        part.status().message(), part.status().SerializeAsString()));
    return true;
  }

  // Takes parts until the call has ended, and returns what came of it.
  Got Await(uint64_t number) {
    while (std::ranges::find(ended_, number) == ended_.end()) {
      if (Take()) continue;
      ADD_FAILURE() << "the stream ended before call " << number;
      return {};
    }
    return got_[number];
  }

  // Takes the rest, and returns how the stream ended.
  absl::Status End() {
    call_.HalfClose();
    while (Take()) {
    }
    return call_.End();
  }

  RawCall& call() { return call_; }
  // The calls that have ended, in order.
  const std::vector<uint64_t>& ended() const { return ended_; }
  const std::vector<v1::Notice>& notices() const { return notices_; }

 private:
  RawCall call_;
  std::map<uint64_t, Got> got_;
  std::vector<uint64_t> ended_;
  std::vector<v1::Notice> notices_;
};

v1::CallsRequest Part(uint64_t number) {
  v1::CallsRequest part;
  part.set_call(number);
  return part;
}

void Append(v1::CallsRequest& part, std::string_view bytes) {
  part.mutable_chunk()->set_data(std::string(bytes));
}

// A forward of `rows` ones of `instance`.
v1::CallsRequest ForwardPart(uint64_t number, int64_t rows = 1,
                             const std::string& instance = "fake") {
  v1::CallsRequest part = Part(number);
  *part.mutable_forward() = ForwardOf(rows);
  part.mutable_forward()->set_instance(instance);
  Append(part, Ones(4 * rows));
  return part;
}

// Sets all parameters of `instance`; the bytes follow.
v1::CallsRequest SetParamsPart(uint64_t number,
                               const std::string& instance = "fake") {
  v1::CallsRequest part = Part(number);
  *part.mutable_set_params() = SetParamsOf(kElements);
  part.mutable_set_params()->set_instance(instance);
  return part;
}

std::string Values(float value) {
  return Bytes(std::vector<float>(kElements, value));
}

v1::CallsRequest GetParamsPart(uint64_t number) {
  v1::CallsRequest part = Part(number);
  part.mutable_get_params()->set_instance("fake");
  return part;
}

v1::CallsRequest CancelPart(uint64_t number) {
  v1::CallsRequest part = Part(number);
  part.set_cancel(true);
  return part;
}

// Holds the fake's forwards from the first one on.
class Held {
 public:
  explicit Held(const TestServer& server) : server_(server) {
    server.OnForward([this] {
      if (!started_.HasBeenNotified()) started_.Notify();
      released_.WaitForNotification();
    });
  }
  ~Held() { Release(); }

  void AwaitStart() {
    ASSERT_TRUE(started_.WaitForNotificationWithTimeout(absl::Seconds(20)));
  }
  void Release() {
    if (!released_.HasBeenNotified()) released_.Notify();
  }

 private:
  const TestServer& server_;
  absl::Notification started_;
  absl::Notification released_;
};

TEST(CallStreamTest, AnswersAsRpcsOfTheirOwnDo) {
  TestServer server;
  PlainClient client(server);
  Stream stream(server);
  stream.Send(ForwardPart(1, 2));
  const Got forward = stream.Await(1);
  EXPECT_THAT(forward.status, IsOk());
  const auto rpc = client.Forward(ForwardOf(2), Ones(8));
  EXPECT_EQ(forward.bytes, rpc->bytes);
  EXPECT_EQ(forward.result.forward().version().DebugString(),
            rpc->header.version().DebugString());

  v1::CallsRequest taped = Part(2);
  *taped.mutable_forward() = TapedForwardOf(1);
  Append(taped, Ones(4));
  stream.Send(taped);
  const std::string tape = stream.Await(2).result.forward().tape_id();
  v1::CallsRequest backward = Part(3);
  *backward.mutable_backward() = BackwardOf(tape, 1);
  backward.mutable_backward()->set_accumulate(true);
  Append(backward, Ones(4));
  stream.Send(backward);
  EXPECT_THAT(stream.Await(3).result.backward().held(), SizeIs(4));

  v1::CallsRequest get = Part(4);
  get.mutable_get_grads()->set_instance("fake");
  get.mutable_get_grads()->set_allow_absent(true);
  stream.Send(get);
  v1::GetGradsRequest request;
  request.set_allow_absent(true);
  EXPECT_EQ(stream.Await(4).bytes, client.GetGrads(request)->bytes);
  v1::CallsRequest zero = Part(5);
  zero.mutable_zero_grads()->set_instance("fake");
  stream.Send(zero);
  EXPECT_EQ(stream.Await(5).result.zero_grads().version().params(), 1U);
  EXPECT_THAT(client.GetGrads(request)->bytes, IsEmpty());
  v1::CallsRequest release = Part(6);
  release.mutable_release_tapes()->add_tape_ids("none");
  stream.Send(release);
  EXPECT_EQ(stream.Await(6).result.release_tapes().released_count(), 0);
  EXPECT_THAT(stream.End(), IsOk());
}

TEST(CallStreamTest, EachCallSaysWhereItsTimeWent) {
  using google::protobuf::util::TimeUtil;
  const auto seconds = [](const google::protobuf::Duration& duration) {
    return 1e-9 *
           static_cast<double>(TimeUtil::DurationToNanoseconds(duration));
  };
  TestServer server;
  Held held(server);
  Stream stream(server);
  stream.Send(ForwardPart(1));
  held.AwaitStart();
  stream.Send(ForwardPart(2));
  absl::SleepFor(absl::Milliseconds(20));
  held.Release();
  const Got first = stream.Await(1);
  EXPECT_GE(seconds(first.timings.compute()), 0.02);
  EXPECT_GE(seconds(first.timings.total()), seconds(first.timings.compute()));
  EXPECT_EQ(first.timings.compute().nanos(),
            first.result.forward().timings().compute().nanos());

  EXPECT_GT(seconds(stream.Await(2).timings.queue()), 0);

  stream.Send(GetParamsPart(3));
  const Got read = stream.Await(3);
  EXPECT_EQ(seconds(read.timings.compute()), 0);
  EXPECT_GT(seconds(read.timings.total()), 0);

  stream.Send(ForwardPart(4, 1, "nobody"));
  const Got failed = stream.Await(4);
  EXPECT_FALSE(failed.status.ok());
  EXPECT_GT(seconds(failed.timings.total()), 0);
}

TEST(CallStreamTest, ChunksOfSeveralCallsMayAlternate) {
  TestServer server;
  server.AddFake("other");
  Stream stream(server);
  stream.Send(SetParamsPart(1));
  stream.Send(SetParamsPart(2, "other"));
  const std::string ones = Values(1);
  const std::string twos = Values(2);
  stream.SendChunk(2, 0, twos.substr(0, 20));
  stream.SendChunk(1, 0, ones.substr(0, 40));
  stream.SendChunk(2, 20, twos.substr(20));
  stream.SendChunk(1, 40, ones.substr(40));
  EXPECT_THAT(stream.Await(1).status, IsOk());
  EXPECT_THAT(stream.Await(2).status, IsOk());
  PlainClient client(server);
  EXPECT_EQ(client.GetParams()->bytes, ones);
  v1::GetParamsRequest other;
  other.set_instance("other");
  EXPECT_EQ(client.GetParams(other)->bytes, twos);
}

TEST(CallStreamTest, ACallSeesWhatEarlierOnesOfItsInstanceChanged) {
  TestServer server;
  Stream stream(server);
  stream.Send(SetParamsPart(1));
  stream.Send(GetParamsPart(2));  // Complete, but must wait for the first.
  stream.Send(SetParamsPart(3));
  stream.SendChunk(3, 0, Values(3));
  stream.Send(GetParamsPart(4));
  stream.SendChunk(1, 0, Values(1));
  EXPECT_EQ(stream.Await(4).bytes, Values(3));
  EXPECT_EQ(stream.Await(2).bytes, Values(1));
  EXPECT_EQ(stream.Await(3).result.set_params().version().params(), 3U);
}

TEST(CallStreamTest, ACallDoesNotWaitForThoseOfOtherInstances) {
  TestServer server;
  server.AddFake("other");
  Stream stream(server);
  stream.Send(SetParamsPart(1));  // Its bytes do not come.
  stream.Send(ForwardPart(2, 1, "other"));
  EXPECT_THAT(stream.Await(2).status, IsOk());
  stream.Send(CancelPart(1));
  EXPECT_TRUE(absl::IsCancelled(stream.Await(1).status));
}

TEST(CallStreamTest, TwoNamesOfAnInstanceAreOneLine) {
  TestServer server;
  Stream stream(server);
  stream.Send(SetParamsPart(1, "fake"));
  v1::CallsRequest get = GetParamsPart(2);
  get.mutable_get_params()->set_instance("local/fake");
  stream.Send(get);
  stream.SendChunk(1, 0, Values(7));
  EXPECT_EQ(stream.Await(2).bytes, Values(7));
}

TEST(CallStreamTest, AFollowerOfAFailedCallDoesNotBegin) {
  TestServer server;
  Stream stream(server);
  v1::CallsRequest stale = SetParamsPart(1);
  stale.mutable_set_params()->mutable_if_version()->set_params(9);
  stream.Send(stale);
  v1::CallsRequest follower = SetParamsPart(2);
  follower.set_after(1);
  stream.Send(follower);
  v1::CallsRequest last = ForwardPart(3);
  last.set_after(2);
  stream.Send(last);
  stream.SendChunk(2, 0, Values(2));
  stream.SendChunk(1, 0, Values(1));
  EXPECT_FALSE(stream.Await(1).status.ok());
  for (const uint64_t number : {2U, 3U}) {
    EXPECT_THAT(
        stream.Await(number).status,
        FailsWith(absl::StatusCode::kAborted, v1::ERROR_REASON_NOT_BEGUN,
                  HasSubstr("was to follow")));
  }
  EXPECT_EQ(VersionOf(server).params(), 1U);
  EXPECT_EQ(server.forward_count(), 0);
  v1::CallsRequest anew = SetParamsPart(4);
  Append(anew, Values(4));
  stream.Send(anew);
  v1::CallsRequest after = ForwardPart(5);
  after.set_after(4);
  stream.Send(after);
  EXPECT_THAT(stream.Await(5).status, IsOk());
}

TEST(CallStreamTest, CancelEndsACallBeforeItsWork) {
  TestServer server;
  Held held(server);
  Stream stream(server);
  stream.Send(ForwardPart(1));
  held.AwaitStart();
  v1::CallsRequest change = SetParamsPart(2);
  Append(change, Values(2));
  stream.Send(change);
  stream.Send(CancelPart(2));
  EXPECT_TRUE(absl::IsCancelled(stream.Await(2).status));
  held.Release();
  EXPECT_THAT(stream.Await(1).status, IsOk());
  EXPECT_EQ(VersionOf(server).params(), 1U);
}

TEST(CallStreamTest, ARunningCallThatIsCancelledEndsAndIsRemembered) {
  TestServer server;
  Held held(server);
  Stream stream(server);
  v1::CallsRequest training = ForwardPart(1, 2);
  training.mutable_forward()->set_training(true);
  training.mutable_forward()->set_request_id("a");
  stream.Send(training);
  held.AwaitStart();
  stream.Send(CancelPart(1));
  stream.Send(ForwardPart(2));  // Behind the cancellation.
  stream.Send(CancelPart(2));
  EXPECT_TRUE(absl::IsCancelled(stream.Await(2).status));
  held.Release();
  EXPECT_TRUE(absl::IsCancelled(stream.Await(1).status));
  training.set_call(3);
  stream.Send(training);
  EXPECT_THAT(stream.Await(3).status, IsOk());
  EXPECT_EQ(server.forward_count(), 1);
}

TEST(CallStreamTest, ATimeoutEndsACallThatHasNotBegun) {
  TestServer server;
  Held held(server);
  Stream stream(server);
  stream.Send(ForwardPart(1));
  held.AwaitStart();
  v1::CallsRequest late = ForwardPart(2);
  late.mutable_timeout()->set_nanos(1'000'000);
  stream.Send(late);
  absl::SleepFor(absl::Milliseconds(100));
  held.Release();
  EXPECT_TRUE(absl::IsDeadlineExceeded(stream.Await(2).status));
  EXPECT_THAT(stream.Await(1).status, IsOk());
  EXPECT_EQ(server.forward_count(), 1);
}

TEST(CallStreamTest, AnExceptionEndsItsCallAlone) {
  TestServer server;
  Stream stream(server);
  server.OnForward([] { throw std::runtime_error("broken"); });
  stream.Send(ForwardPart(1));
  EXPECT_THAT(stream.Await(1).status,
              FailsWith(absl::StatusCode::kInternal,
                        v1::ERROR_REASON_COMPUTE_FAILED, HasSubstr("log")));
  server.OnForward({});
  stream.Send(ForwardPart(2));
  EXPECT_THAT(stream.Await(2).status, IsOk());
}

TEST(CallStreamTest, AFailedCallLeavesTheStreamAlone) {
  TestServer server;
  Stream stream(server);
  stream.Send(ForwardPart(1, 1, "nobody"));
  EXPECT_THAT(
      stream.Await(1).status,
      FailsWith(absl::StatusCode::kNotFound,
                v1::ERROR_REASON_INSTANCE_NOT_FOUND, HasSubstr("nobody")));
  stream.Send(SetParamsPart(2));
  stream.SendChunk(2, 8, "data");
  EXPECT_THAT(stream.Await(2).status,
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_MALFORMED_STREAM,
                        HasSubstr("chunk starts at byte 8, expected byte 0")));
  stream.SendChunk(2, 12, "what still comes is dropped");
  v1::CallsRequest surplus = GetParamsPart(3);
  Append(surplus, "data");
  stream.Send(surplus);
  EXPECT_THAT(stream.Await(3).status,
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_MALFORMED_STREAM,
                        HasSubstr("the tensors end at byte 0")));
  stream.Send(ForwardPart(4));
  EXPECT_THAT(stream.Await(4).status, IsOk());
  EXPECT_THAT(stream.End(), IsOk());
}

TEST(CallStreamTest, PartsOfNoCallAreDropped) {
  TestServer server;
  Stream stream(server);
  stream.Send({});  // Keeps proxies content.
  stream.SendChunk(1, 0, "data");
  stream.Send(CancelPart(7));
  stream.Send(ForwardPart(9));
  EXPECT_THAT(stream.Await(9).status, IsOk());
  stream.SendChunk(9, 0, "data");
  EXPECT_THAT(stream.End(), IsOk());
  EXPECT_THAT(stream.ended(), ElementsAre(9));
}

TEST(CallStreamTest, AnUnknownHeaderIsUnimplementedForItsCall) {
  TestServer server;
  Stream stream(server);
  // Call 1 with field 99, a message of two bytes.
  stream.call().Send(std::string_view("\x08\x01\x9A\x06\x02\x08\x01", 7));
  EXPECT_TRUE(absl::IsUnimplemented(stream.Await(1).status));
  stream.Send(ForwardPart(2));
  EXPECT_THAT(stream.Await(2).status, IsOk());
}

TEST(CallStreamTest, APartThatCannotBeDecodedEndsTheStreamAndItsCalls) {
  TestServer server;
  Held held(server);
  Stream stream(server);
  stream.Send(ForwardPart(1));
  held.AwaitStart();
  stream.Send(SetParamsPart(2));
  stream.call().Send(std::string_view("\x12\x7F", 2));
  EXPECT_TRUE(absl::IsCancelled(stream.Await(2).status));
  held.Release();
  EXPECT_THAT(stream.End(), FailsWith(absl::StatusCode::kInvalidArgument,
                                      v1::ERROR_REASON_MALFORMED_STREAM,
                                      HasSubstr("byte 2")));
}

TEST(CallStreamTest, NumbersMustGrow) {
  for (const uint64_t number : {5U, 4U, 0U}) {
    TestServer server;
    Stream stream(server);
    stream.Send(ForwardPart(5));
    stream.Send(ForwardPart(number));
    EXPECT_THAT(stream.End(),
                FailsWith(absl::StatusCode::kInvalidArgument,
                          v1::ERROR_REASON_MALFORMED_STREAM,
                          HasSubstr("comes behind that of call 5")));
  }
  TestServer server;
  Stream stream(server);
  v1::CallsRequest part = ForwardPart(1);
  part.set_after(1);
  stream.Send(part);
  EXPECT_THAT(stream.End(), FailsWith(absl::StatusCode::kInvalidArgument,
                                      v1::ERROR_REASON_MALFORMED_STREAM,
                                      HasSubstr("call 1 is to follow call 1")));
}

TEST(CallStreamTest, AHalfCloseEndsUploadsThatMissBytesAndAnswersTheRest) {
  TestServer server;
  Held held(server);
  Stream stream(server);
  stream.Send(ForwardPart(1));
  held.AwaitStart();
  stream.Send(SetParamsPart(2));
  stream.SendChunk(2, 0, "four");
  stream.call().HalfClose();
  EXPECT_THAT(stream.Await(2).status,
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_MALFORMED_STREAM,
                        HasSubstr("ended at byte 4, expected 64 bytes")));
  held.Release();
  EXPECT_THAT(stream.Await(1).status, IsOk());
  EXPECT_THAT(stream.End(), IsOk());
}

TEST(CallStreamTest, TheEndOfAStreamEndsItsCalls) {
  TestServer server;
  Held held(server);
  auto stream = std::make_unique<Stream>(server);
  stream->Send(ForwardPart(1));
  held.AwaitStart();
  v1::CallsRequest change = SetParamsPart(2);
  Append(change, Values(2));
  stream->Send(change);
  stream->Send(SetParamsPart(3));
  PlainClient client(server);
  const auto await_calls = [&](int64_t count) {  // Besides GetServer.
    WaitUntil([&] {
      return client.GetServer()->principal_usage().calls() == count + 1;
    });
  };
  await_calls(3);
  stream.reset();  // Cancels.
  await_calls(1);
  EXPECT_EQ(server.in_flight_bytes(), 16);  // The running forward's.
  held.Release();
  await_calls(0);
  EXPECT_EQ(VersionOf(server).params(), 1U);
}

TEST(CallStreamTest, ARepetitionInAnotherStreamGetsTheAnswer) {
  TestServer server;
  v1::CallsRequest change = SetParamsPart(1);
  change.mutable_set_params()->set_request_id("once");
  Append(change, Values(5));
  {
    Stream broken(server);
    broken.Send(change);
    EXPECT_EQ(broken.Await(1).result.set_params().version().params(), 2U);
    broken.call().Cancel();
  }
  Stream stream(server);
  change.clear_chunk();  // The answer needs no bytes.
  stream.Send(change);
  EXPECT_EQ(stream.Await(1).result.set_params().version().params(), 2U);
  stream.SendChunk(1, 0, Values(5));  // They are dropped.
  EXPECT_THAT(stream.End(), IsOk());
  EXPECT_EQ(VersionOf(server).params(), 2U);
}

TEST(CallStreamTest, ARepetitionTakesTheUploadOver) {
  TestServer server;
  Stream first(server);
  v1::CallsRequest change = SetParamsPart(1);
  change.mutable_set_params()->set_request_id("once");
  first.Send(change);
  WaitUntil([&] { return server.in_flight_bytes() > 0; });
  Stream second(server);
  Append(change, Values(5));
  second.Send(change);
  EXPECT_EQ(second.Await(1).result.set_params().version().params(), 2U);
  EXPECT_TRUE(absl::IsCancelled(first.Await(1).status));
}

TEST(CallStreamTest, AStalledUploadIsCancelledAlone) {
  TestServer server(
      {.limits = {.stall_timeout = absl::Milliseconds(100), .quotas = {}}});
  Stream stream(server);
  stream.Send(SetParamsPart(1));
  EXPECT_THAT(stream.Await(1).status,
              FailsWith(absl::StatusCode::kCancelled,
                        v1::ERROR_REASON_CLIENT_STALLED, HasSubstr("KiB")));
  stream.Send(ForwardPart(2));
  EXPECT_THAT(stream.Await(2).status, IsOk());
}

TEST(CallStreamTest, CallsCountNotStreams) {
  TestServer server({.limits = {.max_calls = 2, .quotas = {}}});
  Stream idle(server);
  idle.Send(ForwardPart(1));
  EXPECT_THAT(idle.Await(1).status, IsOk());
  Held held(server);
  Stream stream(server);
  for (const uint64_t number : {1U, 2U, 3U}) stream.Send(ForwardPart(number));
  EXPECT_THAT(stream.Await(3).status, RefusedBy("max-calls", 2));
  held.Release();
  EXPECT_THAT(stream.Await(1).status, IsOk());
  EXPECT_THAT(stream.Await(2).status, IsOk());
}

TEST(CallStreamTest, StreamsHaveALimit) {
  TestServer server({.limits = {.max_streams = 1, .quotas = {}}});
  Stream stream(server);
  stream.Send(ForwardPart(1));
  EXPECT_THAT(stream.Await(1).status, IsOk());
  Stream another(server);
  EXPECT_THAT(another.End(), RefusedBy("max-streams", 1));
  EXPECT_THAT(stream.End(), IsOk());
  WaitUntil([&] {
    Stream again(server);
    return again.End().ok();
  });
}

TEST(CallStreamTest, MoreCallsThanAStreamServesAtATimeAreAnsweredToo) {
  constexpr uint64_t kCalls = 1500;
  TestServer server({.limits = {.max_calls = 4000,
                                .max_queued = 4000,
                                .max_queued_by_run = 4000,
                                .quotas = {}}});
  Held held(server);
  Stream stream(server);
  stream.Send(ForwardPart(1));
  held.AwaitStart();
  std::thread sender([&] {
    for (uint64_t number = 2; number <= kCalls; ++number) {
      stream.Send(ForwardPart(number));
    }
  });
  PlainClient client(server);
  WaitUntil([&] {
    return client.GetServer()->principal_usage().calls() == 1024 + 1;
  });
  held.Release();
  for (uint64_t number = 1; number <= kCalls; ++number) {
    ASSERT_THAT(stream.Await(number).status, IsOk());
  }
  sender.join();
}

TEST(CallStreamTest, TenThousandCancellationsLeaveNothing) {
  constexpr uint64_t kCalls = 10'000;
  TestServer server;
  Held held(server);
  Stream stream(server);
  stream.Send(ForwardPart(1));
  held.AwaitStart();
  std::thread sender([&] {
    for (uint64_t number = 2; number <= kCalls; ++number) {
      stream.Send(SetParamsPart(number));
      stream.Send(CancelPart(number));
    }
  });
  for (uint64_t number = 2; number <= kCalls; ++number) {
    ASSERT_TRUE(absl::IsCancelled(stream.Await(number).status));
  }
  sender.join();
  held.Release();
  EXPECT_THAT(stream.Await(1).status, IsOk());
  EXPECT_THAT(stream.End(), IsOk());
  EXPECT_EQ(server.in_flight_bytes(), 0);
  EXPECT_EQ(VersionOf(server).params(), 1U);
}

TEST(CallStreamTest, AClientThatDoesNotReadLosesItsStreamAndNobodyElseDoes) {
  TestServer server(
      {.size = 1 << 20,
       .listen = {"127.0.0.1:0"},
       .limits = {.stall_timeout = absl::Milliseconds(200), .quotas = {}}});
  Stream stream(server);
  for (const uint64_t number : {1U, 2U, 3U}) stream.Send(GetParamsPart(number));
  PlainClient client(server);
  WaitUntil([&] {
    const auto asked = client.GetServer();
    EXPECT_THAT(asked, IsOk());
    return asked->principal_usage().calls() == 1;
  });
  EXPECT_TRUE(absl::IsCancelled(stream.End()));
}

TEST(CallStreamTest, ASmallAnswerPassesALargeOne) {
  constexpr int64_t kSize = 1 << 20;  // 16 MiB of parameters.
  TestServer server({.size = kSize, .listen = {"127.0.0.1:0"}});
  server.AddFake("other");
  Stream stream(server);
  stream.Send(GetParamsPart(1));
  ASSERT_TRUE(stream.Take());  // The large answer is on its way.
  v1::CallsRequest small = Part(2);
  small.mutable_get_params()->set_instance("fake");
  small.mutable_get_params()->mutable_selection()->mutable_range()->set_end(4);
  stream.Send(small);
  EXPECT_EQ(stream.Await(2).bytes.size(), 16U);
  EXPECT_THAT(stream.ended(), ElementsAre(2));
  const Got large = stream.Await(1);
  EXPECT_EQ(large.bytes.size(), 16U * kSize);
  EXPECT_GT(large.parts, 16);  // Of 256 KiB once there was another call.
}

TEST(CallStreamTest, LargeAnswersTakeTurns) {
  constexpr int64_t kSize = 1 << 20;
  TestServer server({.size = kSize, .listen = {"127.0.0.1:0"}});
  Stream stream(server);
  stream.Send(GetParamsPart(1));
  ASSERT_TRUE(stream.Take());
  v1::CallsRequest half = GetParamsPart(2);
  half.mutable_get_params()->mutable_selection()->mutable_range()->set_end(
      kSize);
  stream.Send(half);
  EXPECT_EQ(stream.Await(2).bytes.size(), 4U * kSize);
  EXPECT_THAT(stream.ended(), ElementsAre(2));
  EXPECT_THAT(stream.Await(1).status, IsOk());
}

TEST(CallStreamTest, ADrainTellsTheClientAndEndsWithTheLastCall) {
  TestServer server;
  Held held(server);
  Stream idle(server);
  Stream stream(server);
  idle.Send({});
  stream.Send(ForwardPart(1));
  held.AwaitStart();
  std::thread drain([&] { server.Drain(); });
  while (stream.notices().empty()) ASSERT_TRUE(stream.Take());
  EXPECT_THAT(stream.notices(), ElementsAre(v1::NOTICE_DRAINING));
  stream.Send(ForwardPart(2));
  EXPECT_THAT(stream.Await(2).status,
              FailsWith(absl::StatusCode::kUnavailable,
                        v1::ERROR_REASON_DRAINING, HasSubstr("shutting down")));
  EXPECT_THAT(idle.End(), IsOk());
  EXPECT_THAT(idle.notices(), ElementsAre(v1::NOTICE_DRAINING));
  held.Release();
  EXPECT_THAT(stream.Await(1).status, IsOk());
  EXPECT_THAT(stream.End(), IsOk());
  drain.join();
}

TEST(CallStreamTest, AnOldStreamAsksItsClientToMove) {
  TestServer server(
      {.limits = {.max_stream_age = absl::Milliseconds(50), .quotas = {}}});
  Held held(server);
  Stream stream(server);
  stream.Send(ForwardPart(1));
  while (stream.notices().empty()) ASSERT_TRUE(stream.Take());
  EXPECT_THAT(stream.notices(), ElementsAre(v1::NOTICE_MOVE));
  stream.Send(ForwardPart(2));
  EXPECT_THAT(stream.Await(2).status, FailsWith(absl::StatusCode::kUnavailable,
                                                v1::ERROR_REASON_DRAINING,
                                                HasSubstr("open another one")));
  held.Release();
  EXPECT_THAT(stream.Await(1).status, IsOk());
  EXPECT_FALSE(stream.Take());
  EXPECT_THAT(stream.call().End(), IsOk());
}

TEST(CallStreamTest, AStreamKeepsItsSessionAlive) {
  TestServer server;
  Stream stream(server, "script");
  stream.Send(ForwardPart(1));
  EXPECT_THAT(stream.Await(1).status, IsOk());
  PlainClient client(server, "script");
  v1::CreateInstanceRequest create;
  create.set_architecture("mnistmlp");
  (*create.mutable_arguments())["num_classes"].set_int_value(2);
  (*create.mutable_arguments())["mlp_hidden_size"].set_int_value(2);
  const auto unnamed = client.CreateInstance(create);
  ASSERT_THAT(unnamed, IsOk());
  server.SweepAfter(absl::Hours(1));
  v1::GetInstanceRequest get;
  get.set_instance(unnamed->instance().name());
  EXPECT_THAT(client.GetInstance(get), IsOk());
}

}  // namespace
}  // namespace backboned
