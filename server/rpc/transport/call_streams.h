// Counts the streams of calls of a server, and ends them when it shuts down.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAMS_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAMS_H_

#include <cstdint>
#include <set>

#include "absl/status/statusor.h"
#include "server/limits/budget.h"
#include "server/limits/quotas.h"

namespace backboned::rpc {

class CallStream;

// The streams that are open. Belongs to the thread of the server's queue.
class CallStreams {
 public:
  CallStreams(int64_t max_streams, const Quotas& quotas);

  // Lets a stream in, as long as it keeps what this returns, or returns
  // kUnavailable (draining) or kResourceExhausted. It must Leave before its
  // end.
  absl::StatusOr<Budget::Reservation> Enter(const Payer& payer,
                                            CallStream& stream);
  void Leave(CallStream& stream) { streams_.erase(&stream); }

  // Returns the next stream's number: from 1.
  int64_t NextNumber() { return ++last_; }

  // Tells all streams that the server is shutting down; each ends with its last
  // call. Refuses new ones.
  void Drain();

 private:
  Budget places_;
  bool draining_ = false;
  int64_t last_ = 0;
  std::set<CallStream*> streams_;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAMS_H_
