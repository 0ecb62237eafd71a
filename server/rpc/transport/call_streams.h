// Counts the streams of calls of a server, and ends them when it shuts down.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAMS_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAMS_H_

#include <cstdint>
#include <functional>
#include <set>

#include "absl/status/statusor.h"
#include "server/limits/budget.h"
#include "server/limits/quotas.h"

namespace backboned::rpc {

// The streams that are open. Belongs to the thread of the server's queue.
class CallStreams {
 public:
  CallStreams(int64_t max_streams, const Quotas& quotas);

  // Tells a stream that the server is shutting down: it ends with its last
  // call.
  using Drain = std::function<void()>;

  // Lets a stream in, as long as it keeps what this returns, or returns
  // kUnavailable (draining) or kResourceExhausted. It must Leave before
  // `drain`, which names it, is gone.
  absl::StatusOr<Budget::Reservation> Enter(const Payer& payer,
                                            const Drain& drain);
  void Leave(const Drain& drain) { streams_.erase(&drain); }

  // Returns the next stream's number: from 1.
  int64_t NextNumber() { return ++last_; }

  // Drains all streams, and refuses new ones.
  void DrainAll();

 private:
  Budget places_;
  bool draining_ = false;
  int64_t last_ = 0;
  std::set<const Drain*> streams_;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAMS_H_
