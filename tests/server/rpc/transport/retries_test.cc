// Sends changes again with the same request id.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class RetriesTest : public ::testing::Test {
 protected:
  // Makes a call and returns its answer's messages as they came.
  std::vector<std::string> Ask(const std::string& method,
                               const std::string& message) {
    RawCall call(server_.channel(), method);
    call.Send(message);
    EXPECT_THAT(call.End(), IsOk()) << method;
    return call.messages();
  }

  v1::Version VersionNow() {
    return client_.GetInstance()->instance().version();
  }

  int64_t GradSum() {
    v1::GetGradsRequest request;
    request.set_allow_absent(true);
    double sum = 0;
    for (const float grad : Floats(client_.GetGrads(request)->bytes)) {
      sum += static_cast<double>(grad);
    }
    return static_cast<int64_t>(sum);
  }

  std::string Ones(int64_t elements) {
    return Bytes(std::vector<float>(static_cast<size_t>(elements), 1));
  }

  TestServer server_;
  PlainClient client_{server_};
};

// R4
TEST_F(RetriesTest, EachChangeIsAppliedOnceAndItsAnswerComesAgain) {
  v1::ForwardHeader forward = TapedForwardOf(2);
  forward.set_request_id("forward-1");
  forward.set_training(true);
  forward.set_return_buffers(true);
  v1::SetParamsHeader params = SetParamsOf(kElements);
  params.set_request_id("params-1");
  v1::SetGradsHeader grads;
  grads.set_instance("fake");
  grads.set_request_id("grads-1");
  *grads.mutable_grads()->mutable_spec() = FloatSpec({kElements});
  v1::SetBuffersHeader buffers;
  buffers.set_instance("fake");
  buffers.set_request_id("buffers-1");
  const auto got = client_.GetBuffers();
  *buffers.mutable_buffers() = got->header.buffers();
  v1::BackwardHeader backward = BackwardOf(
      client_.Forward(TapedForwardOf(1), Ones(4))->header.tape_id(), 1);
  backward.set_request_id("backward-1");
  backward.set_accumulate(true);
  backward.set_return_grads(true);

  const auto twice = [&](const std::string& method,
                         const std::string& message) {
    const std::vector<std::string> first = Ask(method, message);
    EXPECT_EQ(Ask(method, message), first) << method;
    EXPECT_THAT(first, Not(IsEmpty()));
  };
  twice("Forward", Message(forward, 0, Ones(8)));
  EXPECT_EQ(VersionNow().buffers(), 2U);
  EXPECT_EQ(server_.tape_count(), 2);
  twice("Backward", Message(backward, 0, Ones(4)));
  EXPECT_EQ(GradSum(), 4 * 3 + 4 * 2);
  EXPECT_EQ(server_.tape_count(), 1);
  twice("SetParams", Message(params, 0, Ones(kElements)));
  EXPECT_EQ(VersionNow().params(), 2U);
  twice("SetGrads", Message(grads, 0, Ones(kElements)));
  twice("SetBuffers", Message(buffers, 0, got->bytes));
  EXPECT_EQ(VersionNow().buffers(), 3U);

  v1::ZeroGradsRequest zero;
  zero.set_instance("fake");
  zero.set_request_id("zero-1");
  twice("ZeroGrads", zero.SerializeAsString());
  EXPECT_EQ(GradSum(), 0);
  // A late repetition is not applied again.
  Ask("SetGrads", Message(grads, 0, Ones(kElements)));
  EXPECT_EQ(GradSum(), 0);
}

// R4
TEST_F(RetriesTest, InstancesAreMadeAndDeletedOnce) {
  v1::CreateInstanceRequest create;
  create.set_request_id("create-1");
  create.set_name("mlp");
  create.set_architecture("mnistmlp");
  (*create.mutable_arguments())["num_classes"].set_int_value(2);
  (*create.mutable_arguments())["mlp_hidden_size"].set_int_value(2);
  const auto first = client_.CreateInstance(create);
  ASSERT_THAT(first, IsOk());
  for (int i = 0; i < 8; ++i) {  // In whatever order the map is walked.
    const auto again = client_.CreateInstance(create);
    ASSERT_THAT(again, IsOk());
    EXPECT_EQ(again->DebugString(), first->DebugString());
  }

  v1::DeleteInstanceRequest remove;
  remove.set_instance("mlp");
  remove.set_request_id("delete-1");
  EXPECT_THAT(client_.DeleteInstance(remove), IsOk());
  EXPECT_THAT(client_.DeleteInstance(remove), IsOk());
  remove.set_request_id("delete-2");
  EXPECT_THAT(client_.DeleteInstance(remove),
              StatusIs(absl::StatusCode::kNotFound));
}

// R4
TEST_F(RetriesTest, ARetryMayWriteEverythingBeforeItReads) {
  v1::ForwardHeader forward = TapedForwardOf(32);
  forward.set_request_id("forward-1");
  v1::SetParamsHeader params = SetParamsOf(kElements);
  params.set_request_id("params-1");
  for (int i = 0; i < 2; ++i) {  // Both in several chunks.
    EXPECT_THAT(client_.Forward(forward, Ones(128)), IsOk());
    EXPECT_THAT(client_.SetParams(params, Ones(kElements)), IsOk());
  }
  EXPECT_EQ(server_.forward_count(), 1);
  EXPECT_EQ(VersionNow().params(), 2U);
}

// R4
TEST_F(RetriesTest, AFailedAttemptIsRunAgain) {
  v1::SetParamsHeader header = SetParamsOf(kElements);
  header.set_request_id("params-1");
  RawCall cut(server_.channel(), "SetParams");
  cut.Send(Message(header, 0, "1234"));
  EXPECT_THAT(cut.End(), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(client_.SetParams(header, Ones(kElements)), IsOk());
  EXPECT_EQ(VersionNow().params(), 2U);
}

TEST_F(RetriesTest, RefusesTheIdOfAnotherRequest) {
  v1::SetParamsHeader header = SetParamsOf(kElements);
  header.set_request_id("params-1");
  ASSERT_THAT(client_.SetParams(header, Ones(kElements)), IsOk());
  header.mutable_if_version()->set_params(2);
  EXPECT_THAT(
      client_.SetParams(header, Ones(kElements)),
      FailsWith(absl::StatusCode::kInvalidArgument,
                v1::ERROR_REASON_REQUEST_ID_REUSED, HasSubstr("\"params-1\"")));
  EXPECT_EQ(VersionNow().params(), 2U);
  // Another method has its own ids.
  v1::ZeroGradsRequest zero;
  zero.set_request_id("params-1");
  EXPECT_THAT(client_.ZeroGrads(zero), IsOk());
}

// R4 R4: two scripts that count "1", "2", ... make separate requests.
TEST_F(RetriesTest, EqualIdsOfTwoSessionsAreTwoRequests) {
  PlainClient a(server_, "a");
  PlainClient b(server_, "b");
  v1::SetParamsHeader header = SetParamsOf(kElements);
  header.set_request_id("1");
  EXPECT_EQ(a.SetParams(header, Ones(kElements))->version().params(), 2U);
  EXPECT_EQ(b.SetParams(header, Ones(kElements))->version().params(), 3U);
  // A session's retry gets its answer over another connection, too.
  server_.Settle();
  EXPECT_EQ(PlainClient(server_, "a")
                .SetParams(header, Ones(kElements))
                ->version()
                .params(),
            2U);
}

TEST_F(RetriesTest, ADuplicateWaitsForTheFirstAttempt) {
  v1::ForwardHeader header = TapedForwardOf(2);
  header.set_request_id("forward-1");
  absl::Notification started;
  absl::Notification released;
  server_.OnForward([&] {
    started.Notify();  // A second Notify would abort.
    released.WaitForNotification();
  });
  std::vector<std::string> answers(2);
  const auto call = [&](std::string& answer) {
    const auto result = client_.Forward(header, Ones(8));
    ASSERT_THAT(result, IsOk());
    answer = result->header.SerializeAsString() + result->bytes;
  };
  std::thread first([&] { call(answers[0]); });
  started.WaitForNotification();
  std::thread duplicate([&] { call(answers[1]); });
  while (client_.GetServer()->principal_usage().calls() < 3) {
    std::this_thread::yield();
  }
  released.Notify();
  first.join();
  duplicate.join();
  EXPECT_EQ(answers[0], answers[1]);
  EXPECT_EQ(server_.forward_count(), 1);
  EXPECT_EQ(server_.tape_count(), 1);
}

TEST_F(RetriesTest, ADuplicateWithoutTensorsWaitsToo) {
  absl::Notification started;
  absl::Notification released;
  server_.OnForward([&] {
    started.Notify();
    released.WaitForNotification();
  });
  std::vector<std::thread> calls;
  calls.emplace_back(
      [&] { EXPECT_THAT(client_.Forward(ForwardOf(1), Ones(4)), IsOk()); });
  started.WaitForNotification();
  v1::ZeroGradsRequest zero;
  zero.set_request_id("zero-1");
  for (int i = 0; i < 2; ++i) {
    calls.emplace_back([&] { EXPECT_THAT(client_.ZeroGrads(zero), IsOk()); });
  }
  while (client_.GetServer()->principal_usage().calls() < 4) {
    std::this_thread::yield();
  }
  released.Notify();
  for (std::thread& call : calls) call.join();
}

// R4
TEST_F(RetriesTest, ADuplicateRunsIfTheFirstAttemptGoesAway) {
  v1::SetParamsHeader header = SetParamsOf(kElements);
  header.set_request_id("params-1");
  RawCall first(server_.channel(), "SetParams");
  first.Send(Message(header, 0, "1234"));
  while (server_.in_flight_bytes() == 0) std::this_thread::yield();
  std::thread duplicate(
      [&] { EXPECT_THAT(client_.SetParams(header, Ones(kElements)), IsOk()); });
  first.Cancel();
  duplicate.join();
  EXPECT_EQ(VersionNow().params(), 2U);
}

// R4: the first client may be dead, which the server does not know yet.
TEST_F(RetriesTest, ARetryEndsAFirstAttemptThatStillSends) {
  v1::SetParamsHeader params = SetParamsOf(kElements);
  params.set_request_id("params-1");
  v1::ForwardHeader forward = TapedForwardOf(4);
  forward.set_request_id("forward-1");
  const std::vector<std::pair<std::string, std::string>> uploads = {
      {"SetParams", Message(params, 0, Ones(kElements))},
      {"Forward", Message(forward, 0, Ones(kElements))}};
  for (const auto& [method, whole] : uploads) {
    RawCall first(server_.channel(), method);
    first.Send(method == "SetParams" ? Message(params) : Message(forward));
    while (server_.in_flight_bytes() == 0) std::this_thread::yield();
    RawCall retry(server_.channel(), method, {.timeout = absl::Seconds(20)});
    retry.Send(whole);
    EXPECT_THAT(retry.End(), IsOk()) << method;
    EXPECT_THAT(first.End(), StatusIs(absl::StatusCode::kCancelled)) << method;
  }
  server_.Settle();
  client_ = PlainClient(server_);
  EXPECT_EQ(VersionNow().params(), 2U);
  EXPECT_EQ(server_.forward_count(), 1);
  EXPECT_EQ(server_.in_flight_bytes(), 0);
}

// R4
TEST_F(RetriesTest, AVanishedClientGetsItsTapeByItsRequestId) {
  v1::ForwardHeader header = TapedForwardOf(1);
  header.set_request_id("forward-1");
  absl::Notification started;
  absl::Notification cancelled;
  server_.OnForward([&] {
    started.Notify();
    cancelled.WaitForNotification();
  });
  RawCall call(server_.channel(), "Forward");
  call.Send(Message(header, 0, Ones(4)));
  call.HalfClose();
  started.WaitForNotification();
  call.Cancel();
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kCancelled));
  cancelled.Notify();
  server_.Settle();

  PlainClient client(server_);
  const auto retried = client.Forward(header, Ones(4));
  ASSERT_THAT(retried, IsOk());
  EXPECT_EQ(server_.forward_count(), 1);
  v1::BackwardHeader backward = BackwardOf(retried->header.tape_id(), 1);
  backward.set_return_grads(true);
  const auto grads = client.Backward(backward, Ones(4));
  ASSERT_THAT(grads, IsOk());
  EXPECT_THAT(Floats(grads->bytes), ElementsAre(3, 3, 3, 3, 2, 2, 2, 2));
}

// No client could ever use the tape.
TEST_F(RetriesTest, AVanishedClientLeavesNoTapeWithoutARequestId) {
  absl::Notification started;
  absl::Notification cancelled;
  server_.OnForward([&] {
    started.Notify();
    cancelled.WaitForNotification();
  });
  v1::ForwardHeader header = TapedForwardOf(2);
  header.set_training(true);
  RawCall call(server_.channel(), "Forward");
  call.Send(Message(header, 0, Ones(8)));
  call.HalfClose();
  started.WaitForNotification();
  call.Cancel();
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kCancelled));
  cancelled.Notify();
  server_.Settle();
  EXPECT_EQ(server_.tape_count(), 0);
  EXPECT_EQ(server_.in_flight_bytes(), 0);
  // Work that had started was finished.
  EXPECT_EQ(PlainClient(server_).GetInstance()->instance().version().buffers(),
            2U);
}

// R4
TEST(ExpiredAnswersTest, AnAnswerWhoseTensorsAreGoneIsAborted) {
  TestServer server({.answers = {.max_payload_bytes = 24}});  // Of one row.
  PlainClient client(server);
  v1::ForwardHeader forward = TapedForwardOf(2);
  forward.set_request_id("forward-1");
  const std::string two_rows = Bytes({1, 1, 1, 1, 1, 1, 1, 1});
  ASSERT_THAT(client.Forward(forward, two_rows), IsOk());
  EXPECT_THAT(
      client.Forward(forward, two_rows),
      FailsWith(absl::StatusCode::kAborted, v1::ERROR_REASON_ANSWER_EXPIRED,
                HasSubstr("no longer kept")));
  EXPECT_EQ(server.forward_count(), 1);
  // A header is always kept.
  v1::SetParamsHeader params = SetParamsOf(kElements);
  params.set_request_id("params-1");
  const std::string zeros(kElements * 4, '\0');
  ASSERT_THAT(client.SetParams(params, zeros), IsOk());
  forward = TapedForwardOf(1);
  for (const char* id : {"forward-2", "forward-3"}) {
    forward.set_request_id(id);
    ASSERT_THAT(client.Forward(forward, Bytes({1, 1, 1, 1})), IsOk());
  }
  EXPECT_EQ(client.SetParams(params, zeros)->version().params(), 2U);
}

}  // namespace
}  // namespace backboned
