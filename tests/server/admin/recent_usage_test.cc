#include "server/admin/recent_usage.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "server/metrics/call_metrics.h"
#include "tests/testing/test_clock.h"

namespace backboned::admin {
namespace {

using Answer = std::shared_ptr<const RecentUsage::Answer>;

constexpr size_t kHour = 0;
constexpr size_t kDay = 1;
constexpr size_t kMonth = 2;

class RecentUsageTest : public ::testing::Test {
 protected:
  RecentUsageTest() {
    UsageLog::Options options = {.date = [this] {
      if (is_held_) release_.WaitForNotification();
      return date_.Now();
    }};
    auto log = UsageLog::Open(std::move(options));
    server_ = std::make_unique<Server>(
        std::vector{c10::Device(c10::DeviceType::CPU)}, /*threads=*/1,
        ServerOptions(), WeightsFolder(), clock_,
        /*checkpoints=*/nullptr, *std::move(log));
    usage_ = std::make_unique<RecentUsage>(*server_);
  }

  // Counts a call that ended so long ago.
  void Count(const std::string& principal, absl::Duration device_time,
             absl::Duration ago = absl::ZeroDuration()) {
    date_.Advance(absl::Now() - ago - date_.Now());
    server_->usage().Count({.principal = principal},
                           {.calls = 1, .device_time = device_time});
  }

  // Waits for another answer than `last`, and returns it.
  Answer Next(const Answer& last) {
    Answer answer = usage_->Last();
    for (; answer == last; answer = usage_->Last()) std::this_thread::yield();
    return answer;
  }

  TestClock clock_;
  TestClock date_;
  std::atomic<bool> is_held_ = false;  // Questions wait for `release_` then.
  absl::Notification release_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<RecentUsage> usage_;
};

TEST_F(RecentUsageTest, SumsUpSpans) {
  // Of the present hour nothing: it may end meanwhile.
  Count("alice", absl::Seconds(3), absl::Hours(2));
  Count("alice", absl::Seconds(4), absl::Hours(25));
  Count("bob", absl::Seconds(9), absl::Hours(26));
  Count("bob", absl::Seconds(5), absl::Hours(24 * 31));
  const Answer answer = Next(nullptr);
  EXPECT_TRUE(answer->spans[kHour].empty());
  ASSERT_EQ(answer->spans[kDay].size(), 1u);
  EXPECT_EQ(answer->spans[kDay][0].principal, "alice");
  EXPECT_EQ(answer->spans[kDay][0].amounts.device_time, absl::Seconds(3));
  ASSERT_EQ(answer->spans[kMonth].size(), 2u);
  EXPECT_EQ(answer->spans[kMonth][0].principal, "bob");  // Has most.
  EXPECT_EQ(answer->spans[kMonth][0].amounts.device_time, absl::Seconds(9));
  EXPECT_EQ(answer->spans[kMonth][1].amounts.device_time, absl::Seconds(7));
  EXPECT_EQ(answer->spans[kMonth][1].amounts.calls, 2);
}

TEST_F(RecentUsageTest, AsksAgainOnceTheAnswerIsOld) {
  EXPECT_EQ(usage_->Last(), nullptr);  // Nobody waits for the answer.
  const Answer first = Next(nullptr);
  Count("alice", absl::Seconds(1), absl::Hours(2));
  clock_.Advance(RecentUsage::kAge - absl::Milliseconds(1));
  while (!server_->usage_reader().is_idle()) std::this_thread::yield();
  is_held_ = true;
  EXPECT_EQ(usage_->Last(), first);
  EXPECT_TRUE(server_->usage_reader().is_idle());
  release_.Notify();
  clock_.Advance(absl::Milliseconds(1));
  const Answer second = Next(first);
  EXPECT_TRUE(first->spans[kDay].empty());
  EXPECT_EQ(second->spans[kDay].size(), 1u);
}

TEST_F(RecentUsageTest, WaitsForNoDisk) {
  is_held_ = true;
  EXPECT_EQ(usage_->Last(), nullptr);
  EXPECT_EQ(usage_->Last(), nullptr);
  EXPECT_FALSE(server_->usage_reader().is_idle());
  release_.Notify();
  EXPECT_NE(Next(nullptr), nullptr);
}

TEST_F(RecentUsageTest, NamesThoseWithMostAndSumsUpTheOthers) {
  constexpr int kOthers = 20;
  const int count = static_cast<int>(RecentUsage::kMostListed) + kOthers;
  for (int i = 1; i <= count; ++i) {
    Count(absl::StrCat("p", i), absl::Seconds(i), absl::Hours(2));
  }
  const std::vector<RecentUsage::Use> uses = Next(nullptr)->spans[kDay];
  ASSERT_EQ(uses.size(), RecentUsage::kMostListed + 1);
  EXPECT_EQ(uses.front().principal, absl::StrCat("p", count));
  EXPECT_EQ(uses.back().principal, kOtherPrincipals);
  EXPECT_EQ(uses.back().amounts.calls, kOthers);
  EXPECT_EQ(uses.back().amounts.device_time,
            absl::Seconds(kOthers * (kOthers + 1) / 2));
}

TEST_F(RecentUsageTest, EndsWhileItAsks) {
  usage_->Last();
  usage_.reset();
  server_.reset();
}

}  // namespace
}  // namespace backboned::admin
