#include "server/limits/catching.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <new>
#include <sstream>
#include <stdexcept>
#include <string>

#include "base/errors.h"
#include "server/limits/memory_account.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

// Collects the log's lines while it lives.
class Log {
 public:
  Log() {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>(
        "test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_)));
  }
  ~Log() { spdlog::set_default_logger(before_); }

  std::string text() const { return text_.str(); }

 private:
  const std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
  std::ostringstream text_;
};

TEST(RunCatchingTest, ReturnsWhatTheWorkReturns) {
  EXPECT_THAT(RunCatching([] { return absl::DataLossError("lost"); }),
              StatusIs(absl::StatusCode::kDataLoss, "lost"));
  EXPECT_THAT(RunCatching([] { return absl::OkStatus(); }), IsOk());
}

TEST(RunCatchingTest, TellsTheLogTheCauseAndTheClientWhereItIs) {
  Log log;
  const absl::Status status = RunCatching([]() -> absl::Status {
    TORCH_CHECK(false, "sizes differ\nat /src/aten/secret.cpp:12");
    return absl::OkStatus();
  });
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInternal,
                               MatchesRegex("the server failed on this "
                                            "request; its log has the cause "
                                            "as failure [0-9a-f]{8}")));
  EXPECT_EQ(ReasonOf(status), Reason::kComputeFailed);
  const std::string message(status.message());
  EXPECT_THAT(log.text(),
              AllOf(HasSubstr("id=" + message.substr(message.size() - 8)),
                    HasSubstr("sizes differ\\nat /src/aten/secret.cpp:12"),
                    Not(HasSubstr("catching_test"))));
}

TEST(RunCatchingTest, TakesWhateverIsThrown) {
  Log log;
  EXPECT_THAT(
      RunCatching([]() -> absl::Status { throw std::runtime_error("odd"); }),
      StatusIs(absl::StatusCode::kInternal, Not(HasSubstr("odd"))));
  EXPECT_THAT(log.text(), HasSubstr("cause=\"odd\""));
  EXPECT_THAT(RunCatching([]() -> absl::Status { throw 7; }),
              StatusIs(absl::StatusCode::kInternal));
}

// R10
TEST(RunCatchingTest, TurnsMissingMemoryIntoResourceExhausted) {
  const absl::Status system =
      RunCatching([]() -> absl::Status { throw std::bad_alloc(); });
  EXPECT_THAT(system, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(ReasonOf(system), Reason::kOutOfMemory);
  EXPECT_EQ(ReasonOf(RunCatching([]() -> absl::Status {
              TORCH_CHECK_WITH(OutOfMemoryError, false, "too much");
              return absl::OkStatus();
            })),
            Reason::kOutOfMemory);
  EXPECT_EQ(ReasonOf(RunCatching([]() -> absl::Status {
              TORCH_CHECK(false, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when");
              return absl::OkStatus();
            })),
            Reason::kOutOfMemory);
  const absl::Status budget = RunCatching([]() -> absl::Status {
    throw OutOfMemoryBudget(LimitReached(
        {.name = "max-memory-bytes", .value = 10, .requested = 12}, "full"));
  });
  EXPECT_THAT(budget, StatusIs(absl::StatusCode::kResourceExhausted, "full"));
  ASSERT_TRUE(LimitOf(budget).has_value());
  EXPECT_EQ(LimitOf(budget)->name, "max-memory-bytes");
}

}  // namespace
}  // namespace backboned
