// GoogleTest matchers for absl::Status, absl::StatusOr and grpc::Status, since
// Debian's Abseil has none.
//
//   EXPECT_THAT(store.Find("a"), IsOk());
//   EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound));
//   EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
//                                HasSubstr("expected byte 16")));
//   EXPECT_THAT(Parse("7"), IsOkAndHolds(Eq(7)));
//
// They are in `backboned`, not in a namespace `backboned::testing`, which would
// hide GoogleTest's own.

#ifndef BACKBONED_TESTS_TESTING_STATUS_MATCHERS_H_
#define BACKBONED_TESTS_TESTING_STATUS_MATCHERS_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace backboned {

inline constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

namespace status_matchers_internal {

inline absl::Status ToStatus(const absl::Status& status) { return status; }

template <typename T>
absl::Status ToStatus(const absl::StatusOr<T>& result) {
  return result.status();
}

// grpc::Status, without its header.
template <typename S>
requires requires(const S& status) {
  status.error_code(), status.error_message();
}
absl::Status ToStatus(const S& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

class StatusIsMatcher {
 public:
  using is_gtest_matcher = void;

  StatusIsMatcher(absl::StatusCode code,
                  ::testing::Matcher<const std::string&> message)
      : code_(code), message_(std::move(message)) {}

  template <typename S>
  bool MatchAndExplain(const S& actual,
                       ::testing::MatchResultListener* listener) const {
    const absl::Status status = ToStatus(actual);
    *listener << "which is " << status.ToString();
    return status.code() == code_ &&
           message_.Matches(std::string(status.message()));
  }

  void DescribeTo(std::ostream* out) const {
    *out << "is " << absl::StatusCodeToString(code_) << " whose message ";
    message_.DescribeTo(out);
  }

  void DescribeNegationTo(std::ostream* out) const {
    *out << "is not " << absl::StatusCodeToString(code_) << ", or its message ";
    message_.DescribeNegationTo(out);
  }

 private:
  absl::StatusCode code_;
  ::testing::Matcher<const std::string&> message_;
};

template <typename Inner>
class IsOkAndHoldsMatcher {
 public:
  using is_gtest_matcher = void;

  explicit IsOkAndHoldsMatcher(Inner inner) : inner_(std::move(inner)) {}

  template <typename T>
  bool MatchAndExplain(const absl::StatusOr<T>& actual,
                       ::testing::MatchResultListener* listener) const {
    if (!actual.ok()) {
      *listener << "which is " << actual.status().ToString();
      return false;
    }
    *listener << "whose value is " << ::testing::PrintToString(*actual) << ", ";
    return ::testing::SafeMatcherCast<const T&>(inner_).MatchAndExplain(
        *actual, listener);
  }

  void DescribeTo(std::ostream* out) const {
    *out << "is OK and holds the value";
  }
  void DescribeNegationTo(std::ostream* out) const {
    *out << "is not OK, or holds another value";
  }

 private:
  Inner inner_;
};

}  // namespace status_matchers_internal

// Matches a status or result with `code` and a message that matches `message`.
inline auto StatusIs(absl::StatusCode code,
                     ::testing::Matcher<const std::string&> message) {
  return status_matchers_internal::StatusIsMatcher(code, std::move(message));
}

// Matches a status or result with `code`, whatever its message.
inline auto StatusIs(absl::StatusCode code) {
  return StatusIs(code, ::testing::_);
}

// Matches an OK status or result.
inline auto IsOk() { return StatusIs(absl::StatusCode::kOk); }

// Matches an OK result whose value equals or matches `inner`.
template <typename Inner>
auto IsOkAndHolds(Inner inner) {
  return status_matchers_internal::IsOkAndHoldsMatcher<Inner>(std::move(inner));
}

}  // namespace backboned

#endif  // BACKBONED_TESTS_TESTING_STATUS_MATCHERS_H_
