#include "server/rpc/transport/call_order.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned::rpc {

bool CallOrder::HasFailed(uint64_t number) const {
  return number <= forgotten_ || failed_.contains(number);
}

void CallOrder::Join(Place& place) {
  bool begins;
  {
    absl::MutexLock lock(&mutex_);
    active_.insert(place.number);
    if (active_.contains(place.after)) {
      place.waits_for_after = true;
      followers_.emplace(place.after, &place);
    } else {
      place.after_failed = place.after != 0 && HasFailed(place.after);
    }
    if (place.work.instance.empty()) {
      place.has_turn = true;
    } else {
      std::list<Place*>& line = lines_[place.work.instance];
      line.push_back(&place);
      Events begun;
      Advance(line, begun);
    }
    begins = place.has_turn && !place.waits_for_after;
  }
  if (begins) place.begin->Happen();
}

absl::Status CallOrder::CheckBegun(const Place& place) {
  absl::MutexLock lock(&mutex_);
  if (!place.after_failed) return absl::OkStatus();
  return Error(
      absl::StatusCode::kAborted, Reason::kNotBegun,
      absl::StrCat("call ", place.after,
                   ", which this call was to follow, did not succeed"));
}

// Gives the turn to the first call of a line, and to those behind it that
// change nothing if it does not either.
void CallOrder::Advance(std::list<Place*>& line, Events& begun) {
  for (Place* const place : line) {
    if (place != line.front() && place->work.changes) return;
    if (!place->has_turn) {
      place->has_turn = true;
      if (!place->waits_for_after) begun.push_back(place->begin);
    }
    if (place->work.changes) return;
  }
}

void CallOrder::Settle(uint64_t number, bool succeeded, Events& begun) {
  active_.erase(number);
  const auto [first, last] = followers_.equal_range(number);
  for (auto follower = first; follower != last; ++follower) {
    Place& place = *follower->second;
    place.waits_for_after = false;
    place.after_failed = !succeeded;
    if (place.has_turn) begun.push_back(place.begin);
  }
  followers_.erase(first, last);
  if (succeeded) return;
  failed_.insert(number);
  if (failed_.size() <= kMostFailed) return;
  forgotten_ = *failed_.begin();
  failed_.erase(failed_.begin());
}

void CallOrder::End(Place& place, bool succeeded) {
  Events begun;
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(place.ended, true)) return;
    if (place.waits_for_after) {
      std::erase_if(followers_,
                    [&](const auto& entry) { return entry.second == &place; });
    }
    if (!place.work.instance.empty()) {
      const auto line = lines_.find(place.work.instance);
      line->second.remove(&place);
      Advance(line->second, begun);
      if (line->second.empty()) lines_.erase(line);
    }
    Settle(place.number, succeeded, begun);
  }
  for (const std::shared_ptr<Event>& begin : begun) begin->Happen();
}

}  // namespace backboned::rpc
