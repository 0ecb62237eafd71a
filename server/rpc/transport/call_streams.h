// Counts a server's streams, of calls or of health, and ends them when it shuts
// down or their callers lose their rights.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAMS_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAMS_H_

#include <atomic>
#include <cstdint>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/limits/budget.h"
#include "server/limits/quotas.h"

namespace backboned::rpc {

// The streams that are open. Thread-safe.
class CallStreams {
 public:
  CallStreams(int64_t max_streams, const Quotas& quotas);

  // An open stream. Its functions must not call those of CallStreams.
  class Member {
   public:
    virtual ~Member() = default;

    // Ends it with its last call, since the server is shutting down.
    virtual void Drain() = 0;

    // Ends it, or lets it look again, if its caller's rights have changed.
    virtual void Recheck() = 0;
  };

  // Lets a stream in, as long as it keeps what this returns, or returns
  // kUnavailable (draining) or kResourceExhausted. It must Leave before it is
  // gone.
  absl::StatusOr<Budget::Reservation> Enter(const Payer& payer, Member& stream);
  void Leave(Member& stream);

  // The places of open streams, by payer.
  const Budget& places() const { return places_; }

  // Returns the next stream's number: from 1.
  int64_t NextNumber() { return ++last_; }

  // Drains all streams, and refuses new ones.
  void DrainAll();

  void RecheckAll();

 private:
  Budget places_;
  std::atomic<int64_t> last_ = 0;
  absl::Mutex mutex_;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<Member*> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_CALL_STREAMS_H_
