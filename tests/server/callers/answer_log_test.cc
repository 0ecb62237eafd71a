#include "server/callers/answer_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/task.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

absl::Time At(int64_t seconds) {
  return absl::UnixEpoch() + absl::Seconds(seconds);
}

class AnswerLogTest : public ::testing::Test {
 protected:
  static RequestKey Key(const std::string& id,
                        const std::string& session = "") {
    return {.principal = "local",
            .method = "SetParams",
            .request_id = id,
            .session = session};
  }

  // Begins an attempt that is to be run.
  AnswerTicket Fresh(const RequestKey& key, absl::Time now = At(0)) {
    absl::StatusOr<AnswerLog::Attempt> attempt =
        BlockOn(log_.Begin(key, "print", now));
    EXPECT_THAT(attempt, IsOk());
    EXPECT_TRUE(std::holds_alternative<AnswerTicket>(*attempt));
    return std::get<AnswerTicket>(*std::move(attempt));
  }

  // Returns the recorded answer of a retry, if there is one.
  std::optional<RecordedAnswer> Retry(const RequestKey& key,
                                      absl::Time now = At(0)) {
    absl::StatusOr<AnswerLog::Attempt> attempt =
        BlockOn(log_.Begin(key, "print", now));
    EXPECT_THAT(attempt, IsOk());
    if (!std::holds_alternative<RecordedAnswer>(*attempt)) return std::nullopt;
    return std::get<RecordedAnswer>(*std::move(attempt));
  }

  void Record(const RequestKey& key, int64_t payload_bytes = 0,
              absl::Time now = At(0)) {
    Answer answer{.header = "header of " + key.request_id};
    if (payload_bytes > 0) {
      answer.payload = std::make_shared<int>(7);
      answer.payload_bytes = payload_bytes;
    }
    Fresh(key, now).Record(std::move(answer), now);
  }

  AnswerLog log_{
      {.max_count = 3, .max_payload_bytes = 100, .ttl = absl::Seconds(600)}};
};

TEST_F(AnswerLogTest, RetryGetsTheRecordedAnswer) {
  Record(Key("a"), 40);
  const std::optional<RecordedAnswer> retry = Retry(Key("a"));
  ASSERT_TRUE(retry.has_value());
  EXPECT_EQ(retry->answer.header, "header of a");
  EXPECT_EQ(*static_cast<const int*>(retry->answer.payload.get()), 7);
  EXPECT_EQ(retry->answer.payload_bytes, 40);
  EXPECT_FALSE(retry->payload_expired);
}

TEST_F(AnswerLogTest, AnswerWithoutTensorsNeverLacksThem) {
  Record(Key("a"));
  EXPECT_FALSE(Retry(Key("a"))->payload_expired);
}

TEST_F(AnswerLogTest, AbandonedAttemptRunsAnew) {
  { const AnswerTicket failed = Fresh(Key("a")); }
  EXPECT_FALSE(Retry(Key("a")).has_value());
  EXPECT_EQ(log_.count(), 0);
}

TEST_F(AnswerLogTest, MovedTicketAbandonsOnce) {
  AnswerTicket outer = Fresh(Key("a"));
  {
    AnswerTicket inner = std::move(outer);
    outer = std::move(inner);
  }
  outer.Record({.header = "h"}, At(0));
  EXPECT_TRUE(Retry(Key("a")).has_value());
}

TEST_F(AnswerLogTest, RequestWithoutIdAlwaysRuns) {
  Record(Key(""));
  EXPECT_FALSE(Retry(Key("")).has_value());
  EXPECT_EQ(log_.count(), 0);
}

// R4
TEST_F(AnswerLogTest, IdsArePrivateToPrincipalSessionAndMethod) {
  Record(Key("a"));
  RequestKey other = Key("a");
  other.principal = "bob";
  EXPECT_FALSE(Retry(other).has_value());
  other = Key("a");
  other.method = "SetGrads";
  EXPECT_FALSE(Retry(other).has_value());
  EXPECT_FALSE(Retry(Key("a", "another session")).has_value());
}

TEST_F(AnswerLogTest, AnotherSessionsIdMayMeanAnotherRequest) {
  Record(Key("1", "a"));
  EXPECT_THAT(BlockOn(log_.Begin(Key("1", "b"), "other", At(0))), IsOk());
}

TEST_F(AnswerLogTest, RefusesIdOfAnotherRequest) {
  Record(Key("a"));
  const absl::Status reused =
      BlockOn(log_.Begin(Key("a"), "other", At(0))).status();
  EXPECT_THAT(reused,
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("request_id \"a\" was used for another")));
  EXPECT_EQ(ReasonOf(reused), Reason::kRequestIdReused);
}

TEST_F(AnswerLogTest, RefusesIdOfAnotherRequestInFlight) {
  const AnswerTicket first = Fresh(Key("a"));
  EXPECT_THAT(BlockOn(log_.Begin(Key("a"), "other", At(0))),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(AnswerLogTest, ForgetsAfterTheTtl) {
  Record(Key("a"), 40, At(0));
  EXPECT_TRUE(Retry(Key("a"), At(599)).has_value());
  EXPECT_FALSE(Retry(Key("a"), At(600)).has_value());
  EXPECT_EQ(log_.payload_bytes(), 0);
}

TEST_F(AnswerLogTest, ForgetsTheOldestOverTheCount) {
  for (const char* id : {"a", "b", "c", "d"}) Record(Key(id));
  EXPECT_EQ(log_.count(), 3);
  EXPECT_FALSE(Retry(Key("a")).has_value());
  EXPECT_TRUE(Retry(Key("b")).has_value());
}

// R4, R11
TEST_F(AnswerLogTest, OverTheCountTheSessionThatHasMostForgetsItsOwn) {
  Record(Key("modest", "a"));
  for (const char* id : {"1", "2", "3", "4"}) Record(Key(id, "b"));
  EXPECT_EQ(log_.count(), 3);
  EXPECT_TRUE(Retry(Key("modest", "a")).has_value());
  EXPECT_FALSE(Retry(Key("2", "b")).has_value());
  EXPECT_TRUE(Retry(Key("4", "b")).has_value());
}

// R5
TEST_F(AnswerLogTest, ForgetsTheOldestOverTheBytesOfHeaders) {
  AnswerLog log({.max_header_bytes = 5000});
  const auto record = [&](const std::string& id, size_t bytes) {
    auto attempt = BlockOn(log.Begin(Key(id), "print", At(0)));
    ASSERT_TRUE(std::holds_alternative<AnswerTicket>(*attempt));
    std::get<AnswerTicket>(*attempt).Record({.header = std::string(bytes, 'h')},
                                            At(0));
  };
  record("a", 2000);
  record("b", 1000);
  EXPECT_GE(log.header_bytes(), 3000);
  record("c", 2000);
  EXPECT_LE(log.header_bytes(), 5000);
  EXPECT_EQ(log.count(), 2);
  EXPECT_TRUE(std::holds_alternative<RecordedAnswer>(
      *BlockOn(log.Begin(Key("b"), "print", At(0)))));
  AnswerLog exact({.max_header_bytes = log.header_bytes()});
  for (const auto& [id, bytes] : {std::pair("b", 1000), std::pair("c", 2000)}) {
    auto attempt = BlockOn(exact.Begin(Key(id), "print", At(0)));
    std::get<AnswerTicket>(*attempt).Record(
        {.header = std::string(static_cast<size_t>(bytes), 'h')}, At(0));
  }
  EXPECT_EQ(exact.count(), 2);
}

TEST_F(AnswerLogTest, DropsWhatExpiredWithoutARequest) {
  Record(Key("a"), 40, At(0));
  log_.DropExpired(At(599));
  EXPECT_EQ(log_.count(), 1);
  log_.DropExpired(At(600));
  EXPECT_EQ(log_.count(), 0);
  EXPECT_EQ(log_.payload_bytes(), 0);
  EXPECT_EQ(log_.header_bytes(), 0);
}

TEST_F(AnswerLogTest, DropsTheOldestTensorsOverTheBytesAndKeepsHeaders) {
  Record(Key("a"), 60);
  Record(Key("b"), 40);
  EXPECT_FALSE(Retry(Key("a"))->payload_expired);
  Record(Key("c"), 50);
  const std::optional<RecordedAnswer> oldest = Retry(Key("a"));
  ASSERT_TRUE(oldest.has_value());
  EXPECT_TRUE(oldest->payload_expired);
  EXPECT_EQ(oldest->answer.header, "header of a");
  EXPECT_EQ(oldest->answer.payload, nullptr);
  EXPECT_EQ(oldest->answer.payload_bytes, 0);
  EXPECT_FALSE(Retry(Key("b"))->payload_expired);
  EXPECT_EQ(log_.payload_bytes(), 90);
}

// R4, R11
TEST_F(AnswerLogTest, OverTheBytesTheSessionThatHasMostLosesItsOwnTensors) {
  Record(Key("modest", "a"), 30);
  Record(Key("1", "b"), 40);
  Record(Key("2", "b"), 40);
  EXPECT_EQ(log_.payload_bytes(), 70);
  EXPECT_FALSE(Retry(Key("modest", "a"))->payload_expired);
  EXPECT_TRUE(Retry(Key("1", "b"))->payload_expired);
  EXPECT_FALSE(Retry(Key("2", "b"))->payload_expired);
}

TEST_F(AnswerLogTest, OverTheBytesAnswersWithoutTensorsAreNotLookedAt) {
  Record(Key("a"));
  Record(Key("b"), 60);
  Record(Key("c"), 60);
  EXPECT_FALSE(Retry(Key("a"))->payload_expired);
  EXPECT_TRUE(Retry(Key("b"))->payload_expired);
}

TEST_F(AnswerLogTest, DropsTensorsAgainAndAgain) {
  for (const char* id : {"a", "b", "c"}) Record(Key(id), 60);
  EXPECT_TRUE(Retry(Key("a"))->payload_expired);
  EXPECT_TRUE(Retry(Key("b"))->payload_expired);
  EXPECT_FALSE(Retry(Key("c"))->payload_expired);
}

TEST_F(AnswerLogTest, KeepsTensorsOfTheWholeBudget) {
  Record(Key("a"), 100);
  EXPECT_FALSE(Retry(Key("a"))->payload_expired);
}

TEST_F(AnswerLogTest, DoesNotKeepTensorsOverTheWholeBudget) {
  Record(Key("a"), 101);
  EXPECT_TRUE(Retry(Key("a"))->payload_expired);
  EXPECT_EQ(log_.payload_bytes(), 0);
}

TEST_F(AnswerLogTest, HugeTensorsDoNotCostOthersTheirs) {
  Record(Key("a"), 60);
  Record(Key("b"), 101);
  EXPECT_FALSE(Retry(Key("a"))->payload_expired);
}

// A retry that awaits an attempt's end, until its own.
class WaitingRetry {
 public:
  WaitingRetry(AnswerLog& log, RequestKey key, AttemptCaller caller = {}) {
    Await(log.Begin(std::move(key), "print", At(0), std::move(caller)));
  }

  bool ended() const { return attempt_.has_value(); }
  bool runs() const { return std::holds_alternative<AnswerTicket>(**attempt_); }
  const absl::StatusOr<AnswerLog::Attempt>& attempt() const {
    return *attempt_;
  }

 private:
  Detached Await(Task<absl::StatusOr<AnswerLog::Attempt>> begin) {
    attempt_.emplace(co_await begin);
  }

  std::optional<absl::StatusOr<AnswerLog::Attempt>> attempt_;
};

TEST_F(AnswerLogTest, RetryWaitsForTheFirstAttempt) {
  AnswerTicket first = Fresh(Key("a"));
  const WaitingRetry retry(log_, Key("a"));
  EXPECT_FALSE(retry.ended());
  first.Record({.header = "first"}, At(0));
  ASSERT_TRUE(retry.ended());
  EXPECT_EQ(std::get<RecordedAnswer>(*retry.attempt()).answer.header, "first");
}

TEST_F(AnswerLogTest, ARetryAsksTheFirstAttemptToGiveWay) {
  int asked = 0;
  std::optional<absl::StatusOr<AnswerLog::Attempt>> first = BlockOn(log_.Begin(
      Key("a"), "print", At(0), {.give_way = [&asked] { ++asked; }}));
  ASSERT_THAT(*first, IsOk());
  EXPECT_EQ(asked, 0);
  const WaitingRetry retry(log_, Key("a"));
  EXPECT_EQ(asked, 1);
  first.reset();
  ASSERT_TRUE(retry.ended());
  EXPECT_TRUE(retry.runs());
}

TEST_F(AnswerLogTest, AWaitingRetryAsksNoLaterAttemptToGiveWay) {
  std::optional<AnswerTicket> first = Fresh(Key("a"));
  const WaitingRetry earlier(log_, Key("a"));
  int asked = 0;
  const WaitingRetry later(log_, Key("a"), {.give_way = [&asked] { ++asked; }});
  // Both go on: the first to wait runs, the other asks it and waits again.
  first.reset();
  EXPECT_TRUE(earlier.ended());
  EXPECT_FALSE(later.ended());
  EXPECT_EQ(asked, 0);
}

TEST_F(AnswerLogTest, AnEarlierAttemptThatWaitsAgainAsksNobodyToGiveWay) {
  std::optional<AnswerTicket> first = Fresh(Key("a"));
  std::optional<absl::StatusOr<AnswerLog::Attempt>> later;
  bool began = false;
  int asked = 0;
  // Is asked, as it goes on, whether it is wanted; meanwhile another begins.
  const WaitingRetry earlier(
      log_, Key("a"), {.wanted = [&] {
        if (!std::exchange(began, true)) {
          later = BlockOn(log_.Begin(Key("a"), "print", At(0),
                                     {.give_way = [&asked] { ++asked; }}));
        }
        return absl::OkStatus();
      }});
  first.reset();
  ASSERT_TRUE(began);
  EXPECT_FALSE(earlier.ended());
  EXPECT_EQ(asked, 0);
  later.reset();
  EXPECT_TRUE(earlier.ended());
}

TEST_F(AnswerLogTest, ARecordedAnswerHoldsNothingOfItsAttempt) {
  const auto held = std::make_shared<int>(7);
  auto attempt =
      BlockOn(log_.Begin(Key("a"), "print", At(0), {.give_way = [held] {}}));
  std::get<AnswerTicket>(*attempt).Record({.header = "h"}, At(0));
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(AnswerLogTest, RetryRunsIfTheFirstAttemptFails) {
  std::optional<AnswerTicket> first = Fresh(Key("a"));
  const WaitingRetry retry(log_, Key("a"));
  first.reset();
  ASSERT_TRUE(retry.ended());
  EXPECT_TRUE(retry.runs());
}

TEST_F(AnswerLogTest, WaitEndsAtTheDeadline) {
  const AnswerTicket first = Fresh(Key("a"));
  std::stop_source stop;
  const WaitingRetry retry(log_, Key("a"),
                           {.stop = stop.get_token(), .wanted = [] {
                              return absl::DeadlineExceededError("over");
                            }});
  EXPECT_FALSE(retry.ended());
  stop.request_stop();
  ASSERT_TRUE(retry.ended());
  EXPECT_THAT(retry.attempt(),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("the first attempt of request_id \"a\"")));
}

TEST_F(AnswerLogTest, WaitEndsWhenTheClientGoesAway) {
  const AnswerTicket first = Fresh(Key("a"));
  std::stop_source stop;
  stop.request_stop();  // Before it waits.
  const WaitingRetry retry(log_, Key("a"),
                           {.stop = stop.get_token(), .wanted = [] {
                              return absl::CancelledError("gone");
                            }});
  ASSERT_TRUE(retry.ended());
  EXPECT_THAT(retry.attempt(), StatusIs(absl::StatusCode::kCancelled, "gone"));
}

TEST_F(AnswerLogTest, DestroysTensorsOutsideItsLock) {
  int64_t seen = -1;
  static constexpr int kTensors = 7;
  std::shared_ptr<const void> payload(
      &kTensors, [&](const void*) { seen = log_.payload_bytes(); });
  Fresh(Key("a")).Record({.header = "header of a",
                          .payload = std::move(payload),
                          .payload_bytes = 60},
                         At(0));
  Record(Key("b"), 50);
  EXPECT_EQ(seen, 50);  // The destructor could call the log.
}

TEST_F(AnswerLogTest, OneOfManyConcurrentAttemptsRuns) {
  for (int round = 0; round < 100; ++round) {
    const RequestKey key = Key("id" + std::to_string(round));
    std::atomic<int> runs = 0;
    std::vector<std::thread> threads;
    threads.reserve(3);
    for (int i = 0; i < 3; ++i) {
      threads.emplace_back([&] {
        absl::StatusOr<AnswerLog::Attempt> attempt =
            BlockOn(log_.Begin(key, "print", At(0)));
        ASSERT_THAT(attempt, IsOk());
        if (auto* ticket = std::get_if<AnswerTicket>(&*attempt)) {
          ++runs;
          ticket->Record({.header = "once"}, At(0));
        } else {
          EXPECT_EQ(std::get<RecordedAnswer>(*attempt).answer.header, "once");
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(runs, 1);
  }
}

}  // namespace
}  // namespace backboned
