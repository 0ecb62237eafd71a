#include "server/rpc/transport/part_writer.h"

#include <cstdint>

namespace backboned::rpc {

PartWriter::PartWriter(Rpc& rpc, StallWatchdog& watchdog)
    : rpc_(rpc), watchdog_(watchdog) {}

Task<bool> PartWriter::Write(grpc::ByteBuffer part, bool is_whole) {
  Waiting waiting = {.part = &part};
  bool begins;
  {
    absl::MutexLock lock(&mutex_);
    (is_whole ? whole_ : chunks_).push_back(&waiting);
    begins = !writes_;
    writes_ = true;
  }
  if (begins) WriteAll();
  Event& ended = waiting.ended;
  co_await ended;
  co_return waiting.written;
}

// Returns the next part; null: none waits, and nobody writes any more.
PartWriter::Waiting* PartWriter::Next() {
  absl::MutexLock lock(&mutex_);
  std::deque<Waiting*>& line = whole_.empty() ? chunks_ : whole_;
  writes_ = !line.empty();
  if (!writes_) return nullptr;
  Waiting* const next = line.front();
  line.pop_front();
  return next;
}

Detached PartWriter::WriteAll() {
  Waiting* next = Next();
  while (next != nullptr) {
    {
      StallWatchdog::Transfer transfer(watchdog_,
                                       [this] { rpc_.context.TryCancel(); });
      next->written = co_await Operation(
          [&](void* tag) { rpc_.stream.Write(*next->part, tag); });
    }
    Waiting* const written = next;
    next = Next();
    // The answer goes on here. It may offer its next part, or end the stream,
    // and this writer, if no other part waits.
    written->ended.Happen();
  }
}

}  // namespace backboned::rpc
