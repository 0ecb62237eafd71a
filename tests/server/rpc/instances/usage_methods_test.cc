// Tests what a server tells of what its callers used, by the contract.
#include <gmock/gmock.h>
#include <google/protobuf/util/time_util.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/server/rpc/callers_test.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using google::protobuf::util::TimeUtil;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr char kForward[] = "/backboned.v1.BackboneService/Forward";

class UsageMethodsTest : public CallersTest {
 protected:
  // Makes a forward of two samples, under a label if it has one.
  void Forward(const std::string& socket, const std::string& instance,
               const std::string& label = "") const {
    std::multimap<std::string, std::string> metadata;
    if (!label.empty()) metadata.emplace("backboned-label", label);
    RawCall call(ChannelOf(socket), kForward, {.metadata = metadata});
    v1::ForwardHeader header = ForwardOf(2);
    header.set_instance(instance);
    call.Send(Message(header, 0, Ones(8)));
    ASSERT_THAT(call.End(), IsOk());
  }

  static v1::ListUsageRequest By(const std::vector<v1::UsageBy>& by) {
    v1::ListUsageRequest request;
    for (const v1::UsageBy each : by) request.add_by(each);
    return request;
  }

  absl::StatusOr<v1::ListUsageResponse> Ask(
      const std::string& socket, const v1::ListUsageRequest& request) const {
    return PlainClient(ChannelOf(socket)).ListUsage(request);
  }

  // Asks once so many calls have been counted of those that do something:
  // a call counts a little after its answer has come.
  v1::ListUsageResponse AskAfter(int64_t calls, const std::string& socket,
                                 const v1::ListUsageRequest& request) const {
    const absl::Time end = absl::Now() + absl::Seconds(30);
    while (absl::Now() < end) {
      int64_t counted = 0;
      const auto usage = Ask(socket, By({v1::USAGE_BY_INSTANCE}));
      for (const v1::UsageRow& row : usage.value().rows()) {
        if (!row.instance().empty()) counted += row.calls();
      }
      if (counted >= calls) return Ask(socket, request).value();
      std::this_thread::yield();
    }
    ADD_FAILURE() << "not counted: " << calls;
    return {};
  }

  // Leaves out the row of those that ask, which may not be counted yet.
  static std::vector<std::string> Names(const v1::ListUsageResponse& usage) {
    std::vector<std::string> names;
    for (const v1::UsageRow& row : usage.rows()) {
      if (row.instance().empty() && row.label().empty()) continue;
      names.push_back(
          absl::StrCat(row.principal(), " ", row.instance(), " ", row.label()));
    }
    return names;
  }
};

TEST_F(UsageMethodsTest, CountsWhatACallTakes) {
  Forward("alice", "net", "run");
  const v1::ListUsageResponse usage = AskAfter(
      1, "alice",
      By({v1::USAGE_BY_USER, v1::USAGE_BY_INSTANCE, v1::USAGE_BY_LABEL}));
  ASSERT_THAT(Names(usage), ElementsAre("alice alice/net run"));
  const v1::UsageRow& row = *usage.rows().rbegin();
  EXPECT_THAT(row.instance_uid(), SizeIs(32));
  EXPECT_EQ(row.calls(), 1);
  EXPECT_GT(TimeUtil::DurationToNanoseconds(row.device_time()), 0);
  EXPECT_GT(row.received_bytes(), 2 * 16);
  EXPECT_GT(row.sent_bytes(), 2 * 16);
  EXPECT_EQ(TimeUtil::TimestampToSeconds(row.end()) -
                TimeUtil::TimestampToSeconds(row.begin()),
            3600);
  EXPECT_GE(TimeUtil::DurationToNanoseconds(usage.device_busy()),
            TimeUtil::DurationToNanoseconds(row.device_time()));
}

TEST_F(UsageMethodsTest, EverybodySeesTheirOwnAndAdminsAll) {
  Forward("alice", "net", "a");
  Forward("bob", "common", "b");
  Forward("local", "alice/net");
  const v1::ListUsageRequest all =
      By({v1::USAGE_BY_USER, v1::USAGE_BY_LABEL, v1::USAGE_BY_INSTANCE});
  EXPECT_THAT(Names(AskAfter(3, "local", all)),
              ElementsAre("alice alice/net a", "bob server/common b",
                          "local alice/net "));
  EXPECT_THAT(Names(*Ask("alice", all)), ElementsAre("alice alice/net a"));
  EXPECT_THAT(Names(*Ask("bob", By({v1::USAGE_BY_LABEL}))), ElementsAre("  b"));
  ASSERT_THAT(Ask("bob", {})->rows(), SizeIs(1));
}

TEST_F(UsageMethodsTest, ARefusedCallCountsForNoInstance) {
  RawCall call(ChannelOf("bob"), kForward);
  v1::ForwardHeader header = ForwardOf(2);
  header.set_instance("alice/net");
  call.Send(Message(header, 0, Ones(8)));
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kNotFound));
  Forward("bob", "common");
  EXPECT_THAT(Names(AskAfter(1, "bob", By({v1::USAGE_BY_INSTANCE}))),
              ElementsAre(" server/common "));
}

TEST_F(UsageMethodsTest, RowsComeInPages) {
  for (const char* label : {"a", "b", "c"}) Forward("alice", "net", label);
  AskAfter(3, "alice", {});
  v1::ListUsageRequest request = By({v1::USAGE_BY_LABEL});
  request.set_page_size(2);
  std::vector<std::string> names;
  do {
    const auto page = Ask("alice", request);
    ASSERT_THAT(page, IsOk());
    EXPECT_LE(page->rows_size(), 2);
    for (const std::string& name : Names(*page)) names.push_back(name);
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(names, ElementsAre("  a", "  b", "  c"));
}

TEST_F(UsageMethodsTest, ASpanOfTimeHasItsHoursOnly) {
  Forward("alice", "net");
  AskAfter(1, "alice", {});
  const int64_t hour = absl::ToInt64Hours(absl::Now() - absl::UnixEpoch());
  v1::ListUsageRequest request;
  *request.mutable_since() = TimeUtil::SecondsToTimestamp((hour + 2) * 3600);
  EXPECT_THAT(Ask("alice", request)->rows(), IsEmpty());
  // The hour may have ended meanwhile.
  *request.mutable_since() = TimeUtil::SecondsToTimestamp((hour - 1) * 3600);
  EXPECT_THAT(Ask("alice", request)->rows(), SizeIs(1));
  *request.mutable_until() = TimeUtil::SecondsToTimestamp((hour - 1) * 3600);
  EXPECT_THAT(Ask("alice", request)->rows(), IsEmpty());
}

TEST_F(UsageMethodsTest, RefusesWhatMeansNothing) {
  const auto refused = [](const char* message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_INVALID_OPTION, HasSubstr(message));
  };
  EXPECT_THAT(Ask("local", By({v1::USAGE_BY_UNSPECIFIED})),
              refused("by has 0, must be USAGE_BY_USER"));
  EXPECT_THAT(Ask("local", By({static_cast<v1::UsageBy>(9)})),
              refused("by has 9"));
  v1::ListUsageRequest request;
  request.mutable_since()->set_seconds(2);
  request.mutable_until()->set_seconds(1);
  EXPECT_THAT(Ask("local", request), refused("since is after until"));
  request = {};
  request.mutable_until()->set_nanos(-1);
  EXPECT_THAT(Ask("local", request), refused("until is no time"));
  request = {};
  request.set_page_token("x");
  EXPECT_THAT(Ask("local", request), refused("page_token"));
  request = {};
  request.set_page_size(-1);
  EXPECT_THAT(Ask("local", request), refused("page_size is -1"));
}

}  // namespace
}  // namespace backboned
