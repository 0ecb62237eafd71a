#include "client/cpp/retry.h"

#include <algorithm>
#include <array>
#include <random>
#include <string_view>

#include "absl/time/clock.h"
#include "client/cpp/error.h"

namespace backboned::client {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(2);
constexpr double kSpread = 0.25;

// Limits that refuse a call before any of it is done. Other calls that are
// being served reach these limits, not things that the caller keeps.
constexpr std::array<std::string_view, 4> kLimitsAtTheDoor = {
    "max-calls", "max-queued", "max-queued-by-run", "max-in-flight-bytes"};

std::optional<absl::Duration> PauseOf(const absl::Status& status,
                                      int attempts) {
  if (status.code() == absl::StatusCode::kUnavailable) {
    const int doublings = std::min(attempts - 1, 10);
    return std::min(kFirstPause * (1 << doublings), kLongestPause);
  }
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  if (status.code() != absl::StatusCode::kResourceExhausted || !detail ||
      std::ranges::find(kLimitsAtTheDoor, detail->limit()) ==
          kLimitsAtTheDoor.end()) {
    return std::nullopt;
  }
  return RetryDelayOf(status);
}

double Random() {
  thread_local std::minstd_rand generator{std::random_device()()};
  return std::uniform_real_distribution<double>(0, 1)(generator);
}

}  // namespace

std::optional<absl::Duration> PauseAfter(const absl::Status& status,
                                         int attempts, double random) {
  const std::optional<absl::Duration> pause = PauseOf(status, attempts);
  if (!pause) return std::nullopt;
  return *pause * (1 + kSpread * random);
}

Patience::Patience(const Options& options)
    : call_timeout_(options.call_timeout),
      retry_timeout_(std::min(options.retry_timeout, options.call_timeout)),
      begin_(std::chrono::steady_clock::now()) {}

absl::Duration Patience::waited() const {
  return absl::FromChrono(std::chrono::steady_clock::now() - begin_);
}

absl::Duration Patience::left() const { return call_timeout_ - waited(); }

bool Patience::WaitAfter(const absl::Status& status) {
  const std::optional<absl::Duration> pause =
      PauseAfter(status, ++attempts_, Random());
  if (!pause || waited() + *pause >= retry_timeout_) return false;
  absl::SleepFor(*pause);
  return true;
}

}  // namespace backboned::client
