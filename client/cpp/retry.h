// Repeats calls that a busy server did not begin, or whose connection was lost.

#ifndef BACKBONED_CLIENT_CPP_RETRY_H_
#define BACKBONED_CLIENT_CPP_RETRY_H_

#include <chrono>
#include <optional>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/options.h"

namespace backboned::client {

// Returns the pause before a call that ended with `status` is repeated, after
// `attempts` that failed; nullopt: it is not repeated.
//
// Two kinds of calls are repeated: those that the server refused before it
// began them, since it served others, after the time that it asks for; and
// those that were UNAVAILABLE, after a time that grows with `attempts`.
// `random` in [0, 1) makes the time longer by up to a quarter, so that callers
// who were refused together do not return together.
std::optional<absl::Duration> PauseAfter(const absl::Status& status,
                                         int attempts, double random);

// The time of a call, over all of its attempts. Not thread-safe.
class Patience {
 public:
  // Starts the call's time.
  explicit Patience(const Options& options);

  // Returns the rest of the call's time; absl::InfiniteDuration() without a
  // deadline.
  absl::Duration left() const;

  // Waits after an attempt that ended with `status`, and returns whether the
  // call is to be repeated.
  bool WaitAfter(const absl::Status& status);

 private:
  absl::Duration waited() const;

  const absl::Duration call_timeout_;
  const absl::Duration retry_timeout_;
  const std::chrono::steady_clock::time_point begin_;
  int attempts_ = 0;
};

// Makes a call by `attempt`, which takes the rest of the time and returns a
// StatusOr, and repeats it as the options allow. Returns the last answer.
template <typename Attempt>
std::invoke_result_t<Attempt&, absl::Duration> Retry(const Options& options,
                                                     Attempt attempt) {
  Patience patience(options);
  while (true) {
    auto answer = attempt(patience.left());
    if (answer.ok() || !patience.WaitAfter(answer.status())) return answer;
  }
}

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_RETRY_H_
