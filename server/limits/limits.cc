#include "server/limits/limits.h"

namespace backboned {
namespace {

using enum LimitRow::Kind;

constexpr LimitRow kTable[] = {
    {"max-calls", kCount, &Limits::max_calls, "Calls at a time"},
    {"max-instances", kCount, &Limits::max_instances, "Instances at a time"},
    {"max-tapes", kCount, &Limits::max_tapes,
     "Forwards kept for their backward"},
    {"max-tape-bytes", kBytes, &Limits::max_tape_bytes,
     "Bytes that these hold"},
    {"max-in-flight-bytes", kBytes, &Limits::max_in_flight_bytes,
     "Bytes being uploaded at a time"},
    {"max-memory-bytes", kBytes, &Limits::max_memory_bytes,
     "Bytes of all CPU tensors; 0: not limited"},
    {"max-cache-bytes", kBytes, &Limits::max_cache_bytes,
     "Bytes of all feature caches; 0: there are none"},
    {"max-queued", kCount, &Limits::max_queued, "Work waiting for a device"},
    {"max-queued-by-run", kCount, &Limits::max_queued_by_run,
     "Of it, work of one run: of one label, else of one session"},
    {"max-sessions", kCount, &Limits::max_sessions,
     "Client processes at a time"},
    {"tape-ttl", kTime, &Limits::tape_ttl, "Life of an unused tape"},
    {"session-ttl", kTime, &Limits::session_ttl,
     "Time after its last call at which a session is dropped"},
    {"stall-timeout", kTime, &Limits::stall_timeout,
     "Time in which a transfer must make progress"},
    {"drain-timeout", kTime, &Limits::drain_timeout,
     "Time that running calls get to finish at SIGTERM"},
};

}  // namespace

std::span<const LimitRow> LimitTable() { return kTable; }

}  // namespace backboned
