#include "server/limits/limits.h"

namespace backboned {
namespace {

using enum LimitRow::Kind;

constexpr LimitRow kTable[] = {
    {"max-calls", kCount, &Limits::max_calls, "Most calls at a time"},
    {"max-streams", kCount, &Limits::max_streams,
     "Most streams of calls at a time"},
    {"max-instances", kCount, &Limits::max_instances,
     "Most instances at a time"},
    {"max-tapes", kCount, &Limits::max_tapes,
     "Most forwards kept for their backward"},
    {"max-tape-bytes", kBytes, &Limits::max_tape_bytes,
     "Most bytes of all tapes"},
    {"max-in-flight-bytes", kBytes, &Limits::max_in_flight_bytes,
     "Most bytes of uploads at a time"},
    {"max-memory-bytes", kBytes, &Limits::max_memory_bytes,
     "Most bytes of all CPU tensors; 0: no limit"},
    {"max-device-memory-bytes", kBytes, &Limits::max_device_memory_bytes,
     "Most bytes of states and tapes on all GPUs; 0: 9/10 of what is free at "
     "the start"},
    {"max-cache-bytes", kBytes, &Limits::max_cache_bytes,
     "Most bytes of all feature caches; 0: no caches"},
    {"max-checkpoint-bytes", kBytes, &Limits::max_checkpoint_bytes,
     "Most bytes of all checkpoints; 0: no limit"},
    {"max-queued", kCount, &Limits::max_queued,
     "Most work that waits for a device"},
    {"max-queued-by-run", kCount, &Limits::max_queued_by_run,
     "Most work of one run (a label, else a session) that waits for a device"},
    {"max-sessions", kCount, &Limits::max_sessions,
     "Most client processes at a time"},
    {"tape-ttl", kTime, &Limits::tape_ttl,
     "Time until an unused tape is dropped"},
    {"session-ttl", kTime, &Limits::session_ttl,
     "Time from a session's last call until it is dropped"},
    {"max-stream-age", kTime, &Limits::max_stream_age,
     "Time until a stream of calls takes no new ones"},
    {"stall-timeout", kTime, &Limits::stall_timeout,
     "Time in which a transfer must move 64 KiB"},
    {"drain-timeout", kTime, &Limits::drain_timeout,
     "Time for running calls to finish after SIGTERM or SIGINT"},
    {"checkpoint-ttl", kTime, &Limits::checkpoint_ttl,
     "Time from a checkpoint's saving until it is deleted; inf: it is not"},
    {"idle-ttl", kTime, &Limits::idle_ttl,
     "Time from an instance's last use until it sleeps in --state-dir, and its "
     "memory is free; inf: never"},
};

}  // namespace

std::span<const LimitRow> LimitTable() { return kTable; }

}  // namespace backboned
