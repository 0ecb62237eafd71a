// Tells what callers have used of late, to those who look again and again.

#ifndef BACKBONED_SERVER_ADMIN_RECENT_USAGE_H_
#define BACKBONED_SERVER_ADMIN_RECENT_USAGE_H_

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "base/task.h"
#include "server/server.h"
#include "server/usage/usage_counts.h"

namespace backboned::admin {

// Keeps the last answer of the server's usage log, whose disk takes its time.
//
// Thread-safe.
class RecentUsage {
 public:
  // An answer of this age is asked for anew.
  static constexpr absl::Duration kAge = absl::Seconds(10);

  // The most principals that a span names: those with most device time. All
  // others together are `(other)`.
  static constexpr size_t kMostListed = 100;

  // Whole hours of UTC, the last of which is the present one.
  struct Span {
    std::string_view name;
    absl::Duration length;
  };
  static constexpr std::array<Span, 3> kSpans = {
      {{"hour", absl::Hours(1)},
       {"day", absl::Hours(24)},
       {"month", absl::Hours(30 * 24)}}};

  struct Use {
    std::string principal;
    UsageAmounts amounts;
  };

  struct Answer {
    absl::Time time;  // The date of the question.
    // By span; those with most device time come first, `(other)` last.
    std::array<std::vector<Use>, kSpans.size()> spans;
  };

  // `server` must outlive it.
  explicit RecentUsage(Server& server);

  // Returns the last answer; null: there is none yet. If it is old, asks for
  // the next one, for which nobody waits. So nothing is asked while nobody
  // looks.
  std::shared_ptr<const Answer> Last();

 private:
  struct Memory;

  static Detached Ask(Server& server, std::shared_ptr<Memory> memory);

  Server& server_;
  const std::shared_ptr<Memory> memory_;  // A question under way keeps it.
};

}  // namespace backboned::admin

#endif  // BACKBONED_SERVER_ADMIN_RECENT_USAGE_H_
