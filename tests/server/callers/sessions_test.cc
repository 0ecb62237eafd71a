#include "server/callers/sessions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr absl::Duration kTtl = absl::Minutes(10);

absl::Time At(int64_t minutes) {
  return absl::UnixEpoch() + absl::Minutes(minutes);
}

class SessionsTest : public ::testing::Test {
 protected:
  SessionCall Begin(std::string_view id, absl::Time now,
                    std::string_view principal = "local") {
    absl::StatusOr<SessionCall> call = sessions_.Begin(id, principal, now);
    EXPECT_THAT(call, IsOk());
    return std::move(call).value();
  }

  // Begins a call of a session that owns an instance from then on.
  void BeginOwner(std::string_view id, absl::Time now,
                  std::string_view principal = "local") {
    const SessionCall call = Begin(id, now, principal);
    EXPECT_THAT(sessions_.Adopt(id, principal, InstanceOf(id, principal)),
                IsOk());
  }

  static std::string InstanceOf(std::string_view id,
                                std::string_view principal = "local") {
    return absl::StrCat(std::string(principal), "/of-", std::string(id));
  }

  std::set<Payer> taped_;  // Own something besides instances.
  Sessions sessions_{
      kTtl,
      /*max_sessions=*/2,
      {.principals = {{"carl", 0.5}}},
      [this](const Payer& payer) { return taped_.contains(payer); }};
};

TEST_F(SessionsTest, EndsAfterTheTtlWithoutCalls) {
  BeginOwner("a", At(0));
  EXPECT_THAT(sessions_.TakeExpired(At(9)), IsEmpty());
  const std::vector<Sessions::Expired> expired = sessions_.TakeExpired(At(10));
  ASSERT_THAT(expired, SizeIs(1));
  EXPECT_EQ(expired[0].id, "a");
  EXPECT_EQ(expired[0].principal, "local");
  EXPECT_THAT(expired[0].instances, ElementsAre(InstanceOf("a")));
  sessions_.Disown(InstanceOf("a"));  // Nobody owns it any more.
  EXPECT_THAT(sessions_.TakeExpired(At(30)), IsEmpty());
  EXPECT_EQ(sessions_.count(), 0);
}

// R11
TEST_F(SessionsTest, OneThatOwnsNothingEndsWithItsLastCall) {
  {
    const SessionCall call = Begin("a", At(0));
    Begin("a", At(0));
    EXPECT_EQ(sessions_.count(), 1);
  }
  EXPECT_EQ(sessions_.count(), 0);
  EXPECT_THAT(sessions_.TakeExpired(At(60)), IsEmpty());
}

TEST_F(SessionsTest, OneThatOwnsMoreThanInstancesLivesToo) {
  {
    const SessionCall call = Begin("a", At(0));
    taped_.insert({"local", "a"});
  }
  EXPECT_EQ(sessions_.count(), 1);
  const std::vector<Sessions::Expired> expired = sessions_.TakeExpired(At(10));
  ASSERT_THAT(expired, SizeIs(1));
  EXPECT_EQ(expired[0].id, "a");
  EXPECT_THAT(expired[0].instances, IsEmpty());
}

// R11
TEST_F(SessionsTest, OneThatOwnsNothingAnyMoreMakesRoom) {
  taped_.insert({"local", "a"});
  Begin("a", At(0));
  BeginOwner("b", At(0));
  taped_.clear();
  sessions_.Disown(InstanceOf("b"));
  EXPECT_EQ(sessions_.count(), 2);
  const SessionCall c = Begin("c", At(0));
  const SessionCall d = Begin("d", At(0));
  EXPECT_EQ(sessions_.count(), 2);
  EXPECT_THAT(sessions_.Begin("e", "local", At(0)),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_F(SessionsTest, OneThatOwnsNothingAnyMoreStaysWhileThereIsRoom) {
  BeginOwner("a", At(0));
  sessions_.Disown(InstanceOf("a"));
  const SessionCall b = Begin("b", At(0));
  EXPECT_EQ(sessions_.count(), 2);
}

TEST_F(SessionsTest, LivesWhileACallIsInFlight) {
  {
    const SessionCall call = Begin("a", At(0));
    BeginOwner("a", At(1));
    EXPECT_THAT(sessions_.TakeExpired(At(100)), IsEmpty());
  }
  EXPECT_THAT(sessions_.TakeExpired(At(109)), IsEmpty());
  EXPECT_THAT(sessions_.TakeExpired(At(110)), SizeIs(1));
}

TEST_F(SessionsTest, EachCallStartsTheTtlAnew) {
  BeginOwner("a", At(0));
  Begin("a", At(9));
  EXPECT_THAT(sessions_.TakeExpired(At(18)), IsEmpty());
  EXPECT_THAT(sessions_.TakeExpired(At(19)), SizeIs(1));
}

TEST_F(SessionsTest, ARefusedCallStartsTheTtlAnewToo) {
  BeginOwner("a", At(0));
  sessions_.Touch("a", "local", At(6));
  sessions_.Touch("a", "carl", At(7));  // Another principal's, of the same id.
  EXPECT_THAT(sessions_.TakeExpired(At(15)), IsEmpty());
  EXPECT_THAT(sessions_.TakeExpired(At(16)), SizeIs(1));
}

TEST_F(SessionsTest, ARefusedCallStartsNoSession) {
  sessions_.Touch("a", "local", At(0));
  sessions_.Touch("", "local", At(0));
  EXPECT_EQ(sessions_.count(), 0);
}

TEST_F(SessionsTest, MovedCallEndsOnce) {
  BeginOwner("a", At(0));
  SessionCall outer;
  {
    SessionCall inner = Begin("a", At(0));
    outer = std::move(inner);
  }
  EXPECT_THAT(sessions_.TakeExpired(At(50)), IsEmpty());
  outer = SessionCall();
  EXPECT_THAT(sessions_.TakeExpired(At(60)), SizeIs(1));
}

TEST_F(SessionsTest, KnowsASessionByItsPrincipalToo) {
  BeginOwner("a", At(0), "alice");
  const SessionCall other = Begin("a", At(0), "bob");
  EXPECT_EQ(sessions_.count(), 2);
  const std::vector<Sessions::Expired> expired = sessions_.TakeExpired(At(10));
  ASSERT_THAT(expired, SizeIs(1));
  EXPECT_EQ(expired[0].principal, "alice");
}

TEST_F(SessionsTest, EmptyIdIsNoSession) {
  const SessionCall call = Begin("", At(0));
  EXPECT_EQ(sessions_.count(), 0);
}

TEST_F(SessionsTest, RefusesNewSessionOverTheLimit) {
  BeginOwner("a", At(0));
  const SessionCall b = Begin("b", At(0));
  const absl::Status refused = sessions_.Begin("c", "local", At(0)).status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("no room for 1 more session: this server uses "
                                 "2 of its 2 of max-sessions")));
  ASSERT_TRUE(LimitOf(refused).has_value());
  EXPECT_EQ(LimitOf(refused)->name, "max-sessions");
  EXPECT_EQ(LimitOf(refused)->requested, 3);
  Begin("a", At(1));  // It lives already.
}

// R11
TEST_F(SessionsTest, RefusesAPrincipalOverItsPartAndNoOther) {
  BeginOwner("a", At(0), "carl");
  const absl::Status refused = sessions_.Begin("b", "carl", At(0)).status();
  EXPECT_THAT(refused,
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("this principal uses 1 of its 1 of ")));
  Begin("b", At(0));
}

TEST_F(SessionsTest, ExpiredSessionNamesWhatItAdopted) {
  {
    const SessionCall call = Begin("a", At(0));
    EXPECT_THAT(sessions_.Adopt("a", "local", "local/y"), IsOk());
    EXPECT_THAT(sessions_.Adopt("a", "local", "local/x"), IsOk());
    EXPECT_THAT(sessions_.Adopt("a", "local", "local/gone"), IsOk());
  }
  sessions_.Disown("local/gone");
  sessions_.Disown("local/unknown");
  const std::vector<Sessions::Expired> expired = sessions_.TakeExpired(At(10));
  ASSERT_THAT(expired, SizeIs(1));
  EXPECT_THAT(expired[0].instances, ElementsAre("local/x", "local/y"));
}

TEST_F(SessionsTest, LastAdopterOwnsTheInstance) {
  BeginOwner("a", At(0));
  BeginOwner("b", At(1));
  EXPECT_THAT(sessions_.Adopt("b", "local", InstanceOf("a")), IsOk());
  EXPECT_THAT(sessions_.TakeExpired(At(10))[0].instances, IsEmpty());
  EXPECT_THAT(sessions_.TakeExpired(At(11))[0].instances,
              ElementsAre(InstanceOf("a"), InstanceOf("b")));
}

TEST_F(SessionsTest, LastAdopterCanLoseTheInstance) {
  BeginOwner("a", At(0));
  BeginOwner("b", At(1));
  EXPECT_THAT(sessions_.Adopt("b", "local", InstanceOf("a")), IsOk());
  sessions_.Disown(InstanceOf("a"));
  EXPECT_THAT(sessions_.TakeExpired(At(11))[1].instances,
              ElementsAre(InstanceOf("b")));
}

TEST_F(SessionsTest, RefusesToAdoptForSessionThatDoesNotLive) {
  EXPECT_THAT(sessions_.Adopt("a", "local", "local/x"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("session \"a\" has ended")));
}

TEST_F(SessionsTest, NoSessionEndsUnderConcurrentCalls) {
  std::vector<std::thread> threads;
  threads.reserve(3);
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([this, thread] {
      const std::string instance = absl::StrCat("local/", thread);
      for (int64_t round = 0; round < 500; ++round) {
        const SessionCall call = Begin("a", At(round * 20));
        ASSERT_THAT(sessions_.Adopt("a", "local", instance), IsOk());
        sessions_.TakeExpired(At(round * 20 + 15));
        sessions_.Disown(instance);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(sessions_.count(), 0);
}

}  // namespace
}  // namespace backboned
