// Tests the log lines of calls.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/notification.h"
#include "server/rpc/transport/call.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Takes the log's lines while it lives.
class LogLines {
 public:
  LogLines() : before_(spdlog::default_logger()) {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(lines_)));
  }
  ~LogLines() { spdlog::set_default_logger(before_); }

  std::string text() const { return lines_.str(); }

 private:
  std::ostringstream lines_;
  std::shared_ptr<spdlog::logger> before_;
};

// A server whose forwards wait for Release.
class CallLogTest : public ::testing::Test {
 protected:
  CallLogTest() {
    server_.OnForward([this] {
      if (started_.HasBeenNotified()) return;
      started_.Notify();
      released_.WaitForNotification();
    });
    busy_ = std::thread([this] {
      EXPECT_THAT(PlainClient(server_).Forward(ForwardOf(1), Input()), IsOk());
    });
    started_.WaitForNotification();
  }

  static std::string Input() { return Bytes({1, 1, 1, 1}); }

  // Returns once every call has ended.
  void Release() {
    released_.Notify();
    busy_.join();
    server_.Settle();
  }

  LogLines log_;
  absl::Notification started_;
  absl::Notification released_;
  TestServer server_;
  std::thread busy_;
};

TEST_F(CallLogTest, SaysThatTheDeadlinePassed) {
  RawCall call(server_.channel(), "Forward",
               {.timeout = absl::Milliseconds(50)});
  call.Send(Message(ForwardOf(1), 0, Input()));
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kDeadlineExceeded));
  Release();
  EXPECT_THAT(log_.text(), HasSubstr("method=Forward code=DEADLINE_EXCEEDED"));
  EXPECT_THAT(log_.text(), Not(HasSubstr("code=CANCELLED")));
}

TEST_F(CallLogTest, NamesTheRequest) {
  Release();
  v1::ZeroGradsRequest zero;
  zero.set_request_id("zero-1");
  EXPECT_THAT(PlainClient(server_).ZeroGrads(zero), IsOk());
  server_.Settle();
  EXPECT_THAT(log_.text(), HasSubstr("request_id=zero-1"));
}

TEST(TraceparentTest, HasTheFormOfW3c) {
  constexpr char kTrace[] =
      "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  EXPECT_TRUE(rpc::IsTraceparent(kTrace));
  for (const std::string& wrong : {
           std::string(),
           std::string("-"),
           absl::StrCat(kTrace, "-01"),
           absl::StrCat(kTrace, " "),
           absl::StrCat(kTrace, "0"),
           absl::AsciiStrToUpper(kTrace),
           absl::StrReplaceAll(kTrace, {{"00-4", "ff-4"}}),
           absl::StrReplaceAll(kTrace, {{"4bf92f", "4bf9\n "}}),
           std::string("00-") + std::string(32, '0') + "-00f067aa0ba902b7-01",
           std::string("00-4bf92f3577b34da6a3ce929d0e0e4736-") +
               std::string(16, '0') + "-01",
       }) {
    EXPECT_FALSE(rpc::IsTraceparent(wrong)) << wrong;
  }
}

TEST_F(CallLogTest, SaysThatTheClientCancelled) {
  RawCall call(server_.channel(), "Forward");
  call.Send(Message(ForwardOf(1), 0, Input()));
  call.HalfClose();
  call.Cancel();
  EXPECT_THAT(call.End(), StatusIs(absl::StatusCode::kCancelled));
  Release();
  EXPECT_THAT(log_.text(), Not(HasSubstr("code=DEADLINE_EXCEEDED")));
}

}  // namespace
}  // namespace backboned
