#include "server/metrics/call_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <string>
#include <thread>
#include <vector>

namespace backboned {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string TextOf(const CallMetrics& metrics) {
  return prometheus::TextSerializer().Serialize(metrics.Collect());
}

TEST(CallMetricsTest, CountsACall) {
  CallMetrics metrics;
  metrics.AddMethod("Forward");
  metrics.Count("Forward", {.total = absl::Milliseconds(30),
                            .queue = absl::Milliseconds(1),
                            .compute = absl::Milliseconds(20),
                            .bytes_in = 100,
                            .bytes_out = 7});
  const std::string text = TextOf(metrics);
  for (const char* line : {
           "backboned_calls_total{code=\"OK\",method=\"Forward\"} 1\n",
           "backboned_call_received_bytes_total{method=\"Forward\"} 100\n",
           "backboned_call_sent_bytes_total{method=\"Forward\"} 7\n",
           "backboned_call_duration_seconds_sum{method=\"Forward\"} 0.03\n",
           "backboned_call_queue_seconds_sum{method=\"Forward\"} 0.001\n",
           "backboned_call_compute_seconds_sum{method=\"Forward\"} 0.02\n",
           "seconds_bucket{method=\"Forward\",le=\"0.025\"} 1\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(CallMetricsTest, CountsWorkOfCallsThatHadSome) {
  CallMetrics metrics;
  metrics.AddMethod("GetServer");
  metrics.Count("GetServer", {.total = absl::Milliseconds(1)});
  EXPECT_THAT(
      TextOf(metrics),
      HasSubstr("backboned_call_queue_seconds_count{method=\"GetServer\"} 0"));
}

TEST(CallMetricsTest, CountsARefusedCallByItsCodeAlone) {
  CallMetrics metrics;
  metrics.AddMethod("Forward");
  metrics.CountRefused("Forward", absl::StatusCode::kUnauthenticated);
  const std::string text = TextOf(metrics);
  EXPECT_THAT(text,
              HasSubstr("{code=\"UNAUTHENTICATED\",method=\"Forward\"} 1"));
  EXPECT_THAT(text, Not(HasSubstr("duration_seconds_count")));
}

TEST(CallMetricsTest, CountsByPrincipalAndCode) {
  CallMetrics metrics;
  metrics.AddMethod("Forward");
  metrics.AddStream("Calls");
  metrics.Count("Forward", {.principal = "alice"});
  metrics.Count("GetServer", {.principal = "alice"});
  metrics.Count("Forward",
                {.code = absl::StatusCode::kAborted, .principal = "alice"});
  metrics.Count("Calls", {.principal = "alice"});
  metrics.Count("Forward", {.principal = "bob"});
  const std::string text = TextOf(metrics);
  for (const char* line : {
           "principal_calls_total{code=\"OK\",principal=\"alice\"} 2\n",
           "principal_calls_total{code=\"ABORTED\",principal=\"alice\"} 1\n",
           "principal_calls_total{code=\"OK\",principal=\"bob\"} 1\n",
       }) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(CallMetricsTest, CountsPrincipalsBeyondTheMostTogether) {
  CallMetrics metrics;
  metrics.AddMethod("Forward");
  for (int round = 0; round < 2; ++round) {
    for (size_t i = 0; i < kMostPrincipals + 3; ++i) {
      metrics.Count("Forward", {.principal = "p" + std::to_string(i)});
    }
  }
  const std::string text = TextOf(metrics);
  EXPECT_THAT(text, HasSubstr("{code=\"OK\",principal=\"p63\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("{code=\"OK\",principal=\"(other)\"} 6\n"));
  EXPECT_THAT(text, Not(HasSubstr("p64")));
}

TEST(CallMetricsTest, CountsAStreamApartFromItsCalls) {
  CallMetrics metrics;
  metrics.AddStream("Calls");
  metrics.Count("Calls", {.bytes_in = 5});
  metrics.CountRefused("Calls", absl::StatusCode::kUnauthenticated);
  const std::string text = TextOf(metrics);
  EXPECT_THAT(text, HasSubstr("backboned_streams_total{code=\"OK\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("streams_total{code=\"UNAUTHENTICATED\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("Calls")));
}

TEST(CallMetricsTest, HasOneNameForAllUnknownMethods) {
  CallMetrics metrics;
  for (const char* method : {"?", "\"}", "Frwrd"}) metrics.Count(method, {});
  EXPECT_THAT(TextOf(metrics),
              HasSubstr("calls_total{code=\"OK\",method=\"unknown\"} 3\n"));
}

TEST(CallMetricsTest, CountsCallsOfManyThreads) {
  CallMetrics metrics;
  metrics.AddMethod("Forward");
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&metrics] {
      for (int call = 0; call < 1000; ++call) {
        metrics.Count("Forward", {.code = absl::StatusCode::kAborted,
                                  .principal = "alice",
                                  .compute = absl::Seconds(1)});
        if (call % 100 == 0) metrics.Collect();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string text = TextOf(metrics);
  EXPECT_THAT(text, HasSubstr("{code=\"ABORTED\",method=\"Forward\"} 4000\n"));
  EXPECT_THAT(text, HasSubstr("{code=\"ABORTED\",principal=\"alice\"} 4000\n"));
  EXPECT_THAT(text,
              HasSubstr("compute_seconds_count{method=\"Forward\"} 4000\n"));
}

}  // namespace
}  // namespace backboned
