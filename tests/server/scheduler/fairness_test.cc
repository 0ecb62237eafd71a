// Measures the shares of the device in simulated time.

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/scheduler/scheduler.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

// Keeps `in_flight` items of one kind in the queue.
struct Client {
  FlowName flow;
  absl::Duration cost;
  int in_flight = 1;
  absl::Duration pause = absl::ZeroDuration();  // Before its next item.
  uint64_t merge_key = 0;
  uint64_t lane = 0;
};

// Returns the device's time that each client got within `length`.
std::vector<absl::Duration> Simulate(SchedulerOptions options,
                                     const std::vector<Client>& clients,
                                     absl::Duration length) {
  Scheduler scheduler(std::move(options));
  std::vector<absl::Duration> got(clients.size());
  std::map<uint64_t, size_t> owners;
  using Arrival = std::pair<absl::Time, size_t>;
  std::priority_queue<Arrival, std::vector<Arrival>, std::greater<>> arrivals;
  absl::Time now = absl::UnixEpoch();
  const absl::Time end = now + length;
  for (size_t c = 0; c < clients.size(); ++c) {
    for (int i = 0; i < clients[c].in_flight; ++i) arrivals.emplace(now, c);
  }
  uint64_t next_id = 0;
  while (now < end) {
    while (!arrivals.empty() && arrivals.top().first <= now) {
      const size_t c = arrivals.top().second;
      arrivals.pop();
      owners[++next_id] = c;
      EXPECT_THAT(scheduler.Submit({.id = next_id,
                                    .flow = clients[c].flow,
                                    .lane = clients[c].lane,
                                    .merge_key = clients[c].merge_key},
                                   now),
                  IsOk());
    }
    const Scheduler::Dispatch dispatch = scheduler.Next(now);
    if (dispatch.run.empty()) {
      if (arrivals.empty()) break;
      now = arrivals.top().first;
      continue;
    }
    const absl::Duration cost = clients[owners.at(dispatch.run[0])].cost;
    now += cost;
    scheduler.Done(dispatch.run[0], cost, now);
    for (const uint64_t id : dispatch.run) {
      const size_t c = owners.at(id);
      got[c] += cost / static_cast<int64_t>(dispatch.run.size());
      arrivals.emplace(now + clients[c].pause, c);
    }
  }
  return got;
}

double Seconds(absl::Duration duration) {
  return absl::ToDoubleSeconds(duration);
}

TEST(FairnessTest, FloodOfOneLeavesTheOthersTheirShare) {
  std::vector<Client> clients;
  for (const char* run : {"a", "b", "c"}) {
    clients.push_back({.flow = {"local", run},
                       .cost = absl::Milliseconds(10),
                       .pause = absl::Microseconds(200)});
  }
  clients.push_back({.flow = {"local", "flood"},
                     .cost = absl::Milliseconds(10),
                     .in_flight = 10});
  const auto got = Simulate({}, clients, absl::Seconds(100));
  for (size_t c = 0; c < 3; ++c) EXPECT_GT(Seconds(got[c]), 0.9 * 25) << c;
}

TEST(FairnessTest, FloodOfLongWorkGetsNoMoreTime) {
  const std::vector<Client> clients = {{.flow = {"local", "short"},
                                        .cost = absl::Milliseconds(1),
                                        .in_flight = 2},
                                       {.flow = {"local", "long"},
                                        .cost = absl::Milliseconds(50),
                                        .in_flight = 10}};
  const auto got = Simulate({}, clients, absl::Seconds(100));
  EXPECT_NEAR(Seconds(got[0]), 50, 1);
  EXPECT_NEAR(Seconds(got[1]), 50, 1);
}

TEST(FairnessTest, WeightsDivideBetweenPrincipals) {
  const std::vector<Client> clients = {
      {.flow = {"lab", "a"}, .cost = absl::Milliseconds(4), .in_flight = 2},
      {.flow = {"lab", "b"}, .cost = absl::Milliseconds(4), .in_flight = 2},
      {.flow = {"guest", "c"}, .cost = absl::Milliseconds(7), .in_flight = 2}};
  const auto got = Simulate({.weight_of =
                                 [](const std::string& principal) {
                                   return principal == "lab" ? 3 : 1;
                                 }},
                            clients, absl::Seconds(100));
  EXPECT_NEAR(Seconds(got[0]), 37.5, 1);
  EXPECT_NEAR(Seconds(got[1]), 37.5, 1);
  EXPECT_NEAR(Seconds(got[2]), 25, 1);
}

TEST(FairnessTest, MoreRunsOfAPrincipalGetNoMoreTogether) {
  std::vector<Client> clients = {
      {.flow = {"one", "only"}, .cost = absl::Milliseconds(5), .in_flight = 2}};
  for (const char* run : {"a", "b", "c", "d"}) {
    clients.push_back(
        {.flow = {"many", run}, .cost = absl::Milliseconds(5), .in_flight = 2});
  }
  const auto got = Simulate({}, clients, absl::Seconds(100));
  EXPECT_NEAR(Seconds(got[0]), 50, 1);
  for (size_t c = 1; c < 5; ++c) EXPECT_NEAR(Seconds(got[c]), 12.5, 1) << c;
}

TEST(FairnessTest, ShareOfWhoRestsGoesToTheOthers) {
  const std::vector<Client> clients = {{.flow = {"local", "rare"},
                                        .cost = absl::Milliseconds(10),
                                        .pause = absl::Milliseconds(90)},
                                       {.flow = {"local", "busy"},
                                        .cost = absl::Milliseconds(10),
                                        .in_flight = 4}};
  const auto got = Simulate({}, clients, absl::Seconds(100));
  EXPECT_GT(Seconds(got[0]), 8.5);  // All that it asked for, minus waiting.
  EXPECT_NEAR(Seconds(got[0]) + Seconds(got[1]), 100, 0.1);
}

TEST(FairnessTest, BatchIsPaidBySamples) {
  // The two that run together pay half of a batch each, so that they get as
  // many batches as the third gets single runs.
  const std::vector<Client> clients = {
      {.flow = {"local", "a"},
       .cost = absl::Milliseconds(10),
       .in_flight = 2,
       .merge_key = 1},
      {.flow = {"local", "b"},
       .cost = absl::Milliseconds(10),
       .in_flight = 2,
       .merge_key = 1},
      {.flow = {"local", "c"}, .cost = absl::Milliseconds(10), .in_flight = 2}};
  const auto got = Simulate({}, clients, absl::Seconds(100));
  EXPECT_NEAR(Seconds(got[0]), 100. / 3, 1);
  EXPECT_NEAR(Seconds(got[1]), 100. / 3, 1);
  EXPECT_NEAR(Seconds(got[2]), 100. / 3, 1);
}

TEST(FairnessTest, LaneOfTwoRunsStarvesNobody) {
  const std::vector<Client> clients = {
      {.flow = {"local", "a"},
       .cost = absl::Milliseconds(10),
       .in_flight = 8,
       .lane = 1},
      {.flow = {"local", "b"}, .cost = absl::Milliseconds(10), .lane = 1},
      {.flow = {"local", "c"}, .cost = absl::Milliseconds(10)}};
  const auto got = Simulate({}, clients, absl::Seconds(100));
  for (const absl::Duration one : got) EXPECT_GT(Seconds(one), 5);
}

}  // namespace
}  // namespace backboned
