// The limits that an operator sets: their values, and a table of their names.

#ifndef BACKBONED_SERVER_LIMITS_LIMITS_H_
#define BACKBONED_SERVER_LIMITS_LIMITS_H_

#include <cstdint>
#include <span>
#include <variant>

#include "absl/time/time.h"
#include "server/limits/quotas.h"

namespace backboned {

// Each value begins with its default. Errors name a limit as the server's
// option spells it, without dashes in front.
struct Limits {
  int64_t max_calls = 256;
  int64_t max_streams = 4096;
  int64_t max_instances = 1024;
  int64_t max_tapes = 1024;
  int64_t max_tape_bytes = int64_t{4} << 30;
  int64_t max_in_flight_bytes = int64_t{2} << 30;
  // Of all CPU tensors. 0: not limited. The program sets 9/10 of the machine's.
  int64_t max_memory_bytes = 0;
  // Of all GPUs. 0: 9/10 of the memory that is free at the start.
  int64_t max_device_memory_bytes = 0;
  int64_t max_cache_bytes = int64_t{1} << 30;  // 0: no instance has a cache.
  int64_t max_checkpoint_bytes = 0;            // 0: not limited.
  // Of each device. Both are below the calls, of all and of a session, so that
  // a full queue leaves calls for methods that need no device.
  int64_t max_queued = 192;
  int64_t max_queued_by_run = 96;
  int64_t max_sessions = 4096;
  absl::Duration tape_ttl = absl::Minutes(10);
  absl::Duration session_ttl = absl::Minutes(10);
  absl::Duration max_stream_age = absl::Hours(1);
  absl::Duration stall_timeout = absl::Seconds(60);
  absl::Duration drain_timeout = absl::Seconds(30);
  absl::Duration checkpoint_ttl = absl::InfiniteDuration();
  absl::Duration idle_ttl = absl::Hours(1);
  // Each payer's part of the counts and bytes above, but of `max_queued` and
  // `max_sessions` a principal's only, and of `max_queued_by_run` nobody's.
  Quotas quotas = {.session = 0.5};
};

// A row of the table: from it come the option and its environment variable, and
// the field of GetServer's answer that has the same name with underscores.
// docs/limits.md has a row with the default, too; tests compare.
struct LimitRow {
  enum class Kind { kCount, kBytes, kTime };

  const char* name;  // `max-tapes`.
  Kind kind;
  std::variant<int64_t Limits::*, absl::Duration Limits::*> value;
  const char* help;
};

// Returns the rows, in the order of the help text.
std::span<const LimitRow> LimitTable();

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_LIMITS_H_
