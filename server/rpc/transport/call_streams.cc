#include "server/rpc/transport/call_streams.h"

#include "server/rpc/transport/call_stream.h"
#include "server/rpc/transport/status.h"

namespace backboned::rpc {

CallStreams::CallStreams(int64_t max_streams, const Quotas& quotas)
    : places_({.name = "max-streams",
               .unit = "stream",
               .limit = max_streams,
               .quotas = quotas}) {}

absl::StatusOr<Budget::Reservation> CallStreams::Enter(const Payer& payer,
                                                       CallStream& stream) {
  if (draining_) return Draining();
  absl::StatusOr<Budget::Reservation> place = places_.Reserve(payer, 1);
  if (place.ok()) streams_.insert(&stream);
  return place;
}

void CallStreams::Drain() {
  draining_ = true;
  for (CallStream* const stream : streams_) stream->Drain();
}

}  // namespace backboned::rpc
