#include "server/rpc/transport/call_streams.h"

#include "server/rpc/transport/status.h"

namespace backboned::rpc {

CallStreams::CallStreams(int64_t max_streams, const Quotas& quotas)
    : places_({.name = "max-streams",
               .unit = "stream",
               .limit = max_streams,
               .quotas = quotas}) {}

absl::StatusOr<Budget::Reservation> CallStreams::Enter(const Payer& payer,
                                                       Member& stream) {
  absl::MutexLock lock(&mutex_);
  if (draining_) return Draining();
  absl::StatusOr<Budget::Reservation> place = places_.Reserve(payer, 1);
  if (place.ok()) streams_.insert(&stream);
  return place;
}

void CallStreams::Leave(Member& stream) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(&stream);
}

void CallStreams::DrainAll() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
  for (Member* const stream : streams_) stream->Drain();
}

void CallStreams::RecheckAll() {
  absl::MutexLock lock(&mutex_);
  for (Member* const stream : streams_) stream->Recheck();
}

}  // namespace backboned::rpc
