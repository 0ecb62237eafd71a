#include "server/rpc/transport/call_streams.h"

#include "server/rpc/transport/status.h"

namespace backboned::rpc {

CallStreams::CallStreams(int64_t max_streams, const Quotas& quotas)
    : places_({.name = "max-streams",
               .unit = "stream",
               .limit = max_streams,
               .quotas = quotas}) {}

absl::StatusOr<Budget::Reservation> CallStreams::Enter(const Payer& payer,
                                                       const Drain& drain) {
  absl::MutexLock lock(&mutex_);
  if (draining_) return Draining();
  absl::StatusOr<Budget::Reservation> place = places_.Reserve(payer, 1);
  if (place.ok()) streams_.insert(&drain);
  return place;
}

void CallStreams::Leave(const Drain& drain) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(&drain);
}

void CallStreams::DrainAll() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  for (const Drain* const drain : streams_) (*drain)();
}

}  // namespace backboned::rpc
