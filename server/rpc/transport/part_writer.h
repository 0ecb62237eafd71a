// Writes the answers of a stream of calls.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_PART_WRITER_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_PART_WRITER_H_

#include <grpcpp/support/byte_buffer.h>

#include <deque>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/task.h"
#include "server/limits/continuation.h"
#include "server/rpc/transport/completion.h"
#include "server/rpc/transport/stall_watchdog.h"

namespace backboned::rpc {

// Writes parts, one at a time. Those that are a whole answer go first; chunks
// of several answers take turns, since each answer offers one at a time. A
// client that does not take a part in time loses its stream.
//
// Thread-safe.
class PartWriter {
 public:
  // The arguments must outlive the writer, and the writer its Writes.
  PartWriter(Rpc& rpc, StallWatchdog& watchdog);

  // Writes a part, and gives whether it has left. `is_whole`: it is all of an
  // answer.
  Task<bool> Write(grpc::ByteBuffer part, bool is_whole);

 private:
  struct Waiting {
    const grpc::ByteBuffer* part;
    bool written = false;
    Event ended = {};
  };

  Detached WriteAll();
  Waiting* Next();

  Rpc& rpc_;
  StallWatchdog& watchdog_;
  absl::Mutex mutex_;
  std::deque<Waiting*> whole_ ABSL_GUARDED_BY(mutex_);
  std::deque<Waiting*> chunks_ ABSL_GUARDED_BY(mutex_);
  bool writes_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_PART_WRITER_H_
