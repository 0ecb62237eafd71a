// Tests which calls of a stream may work.
#include "server/rpc/transport/call_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/task.h"
#include "tests/testing/status_matchers.h"

namespace backboned::rpc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class CallOrderTest : public ::testing::Test {
 protected:
  // Joins a call, and notes in begun_ when it may work.
  CallOrder::Place& Join(uint64_t number, const std::string& instance,
                         bool changes, uint64_t after = 0) {
    CallOrder::Place& place = *places_.emplace_back(new CallOrder::Place{
        .number = number,
        .after = after,
        .work = {.instance = instance, .changes = changes}});
    order_.Join(place);
    Await(place);
    return place;
  }

  Detached Await(CallOrder::Place& place) {
    Event& begin = *place.begin;
    co_await begin;
    begun_.push_back(place.number);
  }

  // Returns the calls that began since the last time.
  std::vector<uint64_t> TakeBegun() { return std::exchange(begun_, {}); }

  CallOrder order_;
  std::vector<std::unique_ptr<CallOrder::Place>> places_;
  std::vector<uint64_t> begun_;
};

TEST_F(CallOrderTest, ChangesWorkAloneAndInOrder) {
  auto& first = Join(1, "a", true);
  auto& second = Join(2, "a", true);
  Join(3, "a", true);
  EXPECT_THAT(TakeBegun(), ElementsAre(1));
  order_.End(first, true);
  EXPECT_THAT(TakeBegun(), ElementsAre(2));
  order_.End(second, false);
  EXPECT_THAT(TakeBegun(), ElementsAre(3));
}

TEST_F(CallOrderTest, CallsThatChangeNothingWorkTogetherBetweenChanges) {
  auto& first = Join(1, "a", false);
  auto& second = Join(2, "a", false);
  auto& change = Join(3, "a", true);
  Join(4, "a", false);
  Join(5, "a", false);
  EXPECT_THAT(TakeBegun(), ElementsAre(1, 2));
  order_.End(second, true);
  EXPECT_THAT(TakeBegun(), IsEmpty());
  order_.End(first, true);
  EXPECT_THAT(TakeBegun(), ElementsAre(3));
  order_.End(change, true);
  EXPECT_THAT(TakeBegun(), ElementsAre(4, 5));
}

TEST_F(CallOrderTest, OtherInstancesAndCallsWithoutOneWaitForNobody) {
  Join(1, "a", true);
  Join(2, "b", true);
  Join(3, "", true);
  Join(4, "", true);
  EXPECT_THAT(TakeBegun(), ElementsAre(1, 2, 3, 4));
}

TEST_F(CallOrderTest, ACallThatEndsInTheLineLetsThoseBehindItPass) {
  auto& first = Join(1, "a", true);
  auto& second = Join(2, "a", true);
  Join(3, "a", true);
  order_.End(second, false);  // Cancelled while it waited.
  TakeBegun();
  order_.End(first, true);
  EXPECT_THAT(TakeBegun(), ElementsAre(3));
}

TEST_F(CallOrderTest, AFollowerBeginsWithTheEndOfItsCall) {
  auto& first = Join(1, "a", true);
  auto& follower = Join(2, "b", true, /*after=*/1);
  EXPECT_THAT(TakeBegun(), ElementsAre(1));
  order_.End(first, true);
  EXPECT_THAT(TakeBegun(), ElementsAre(2));
  EXPECT_THAT(order_.CheckBegun(follower), IsOk());
}

TEST_F(CallOrderTest, AFollowerOfAFailedCallDoesNotBegin) {
  auto& first = Join(1, "a", true);
  auto& before = Join(2, "a", true, /*after=*/1);
  order_.End(first, false);
  auto& behind = Join(3, "b", true, /*after=*/1);
  for (auto* const follower : {&before, &behind}) {
    EXPECT_THAT(order_.CheckBegun(*follower),
                StatusIs(absl::StatusCode::kAborted,
                         HasSubstr("call 1, which this call was to follow")));
  }
  // Nor does what follows it.
  auto& last = Join(4, "a", true, /*after=*/2);
  order_.End(before, false);
  EXPECT_FALSE(order_.CheckBegun(last).ok());
}

TEST_F(CallOrderTest, AFollowerOfACallThatSucceededBeginsAtOnce) {
  auto& first = Join(1, "a", true);
  order_.End(first, true);
  auto& follower = Join(2, "a", true, /*after=*/1);
  EXPECT_THAT(TakeBegun(), ElementsAre(1, 2));
  EXPECT_THAT(order_.CheckBegun(follower), IsOk());
}

TEST_F(CallOrderTest, AFollowerWaitsForItsTurnToo) {
  auto& first = Join(1, "a", true);
  auto& second = Join(2, "b", true);
  Join(3, "b", true, /*after=*/1);
  TakeBegun();
  order_.End(first, true);
  EXPECT_THAT(TakeBegun(), IsEmpty());
  order_.End(second, true);
  EXPECT_THAT(TakeBegun(), ElementsAre(3));
}

TEST_F(CallOrderTest, OldFailedCallsAreForgottenTogether) {
  auto& first = Join(1, "a", true);
  order_.End(first, true);
  const auto most = static_cast<uint64_t>(CallOrder::kMostFailed);
  for (uint64_t number = 2; number <= most + 2; ++number) {
    order_.End(Join(number, "a", true), false);
  }
  // The failed call 2 was forgotten, and everything up to it with it.
  auto& follower = Join(most + 3, "a", true, /*after=*/1);
  EXPECT_FALSE(order_.CheckBegun(follower).ok());
}

}  // namespace
}  // namespace backboned::rpc
