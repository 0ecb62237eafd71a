// Calls that are made again: a busy server did not begin them, or the
// connection was lost.

#ifndef BACKBONED_CLIENT_CPP_RETRY_H_
#define BACKBONED_CLIENT_CPP_RETRY_H_

#include <chrono>
#include <optional>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/options.h"

namespace backboned::client {

// Returns how long to wait until a call that ended with `status` is made again,
// after `attempts` that did not succeed. nullopt: it is not made again.
//
// Made again are calls that a server refused before it began them, since it
// served others, after the time that it asks for; and, after a time that grows
// with `attempts`, calls that were UNAVAILABLE. `random` in [0, 1) makes the
// time longer by up to a quarter, so that those who were refused together do
// not come back together.
std::optional<absl::Duration> PauseAfter(const absl::Status& status,
                                         int attempts, double random);

// The time of one call, over all of its attempts. Not thread-safe.
class Patience {
 public:
  // The call begins now.
  explicit Patience(const Options& options);

  // What is left of the call's time; absl::InfiniteDuration() without a
  // deadline.
  absl::Duration left() const;

  // Waits after an attempt that ended with `status`, and returns true if the
  // call is to be made again.
  bool WaitAfter(const absl::Status& status);

 private:
  absl::Duration waited() const;

  const absl::Duration call_timeout_;
  const absl::Duration retry_timeout_;
  const std::chrono::steady_clock::time_point begin_;
  int attempts_ = 0;
};

// Makes a call by `attempt`, which takes the time that it has and returns a
// StatusOr, and makes it again as the options allow. Returns the last answer.
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
