#include "tests/client/cpp/random/checker.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cpp/error.h"

namespace backboned::client::random {
namespace {

// The tolerance of answers, as a part of the largest compared number: they are
// computed in float32, over many steps.
constexpr double kTolerance = 1e-3;

}  // namespace

void Checker::Fail(const std::string& what) {
  if (failure_.empty()) failure_ = what;
}

bool Checker::Ends(const absl::Status& status, const Ending& ending) {
  const v1::ErrorReason reason = ReasonOf(status);
  if (status.code() != ending.code || reason != ending.reason) {
    Fail(absl::StrCat("ended with ", status.ToString(), " (",
                      v1::ErrorReason_Name(reason), "), expected ",
                      absl::StatusCodeToString(ending.code), " (",
                      v1::ErrorReason_Name(ending.reason), ")"));
  }
  return status.ok() && ending.ok();
}

void Checker::ExpectValues(std::span<const float> actual,
                           const Values& expected, const std::string& what) {
  double largest = 1;
  for (const double value : expected) {
    largest = std::max(largest, std::abs(value));
  }
  bool near = actual.size() == expected.size();
  for (size_t i = 0; near && i < expected.size(); ++i) {
    near = std::abs(double{actual[i]} - expected[i]) <= kTolerance * largest;
  }
  if (near) return;
  Fail(absl::StrCat(what, " is [", absl::StrJoin(actual, ", "), "], expected ",
                    Word(expected)));
}

void Checker::ExpectVersion(const v1::Version& actual,
                            const InstanceModel& expected) {
  if (actual.uid() == expected.uid &&
      actual.params() == expected.params_version &&
      actual.buffers() == expected.buffers_version) {
    return;
  }
  Fail(absl::StrCat("the version is ", actual.ShortDebugString(),
                    ", expected params ", expected.params_version,
                    " and buffers ", expected.buffers_version, " of ",
                    expected.uid));
}

std::string Word(const Values& values) {
  return absl::StrCat("[", absl::StrJoin(values, ", "), "]");
}

}  // namespace backboned::client::random
