#include "server/scheduler/turn_queue.h"

#include <algorithm>

namespace backboned {

void TurnQueue::SetFirst(const std::string& name,
                         std::optional<uint64_t> arrival) {
  Member& member = members_[name];
  TakeOut(name, member);
  if (!member.first) member.tag = std::max(member.tag, virtual_time_);
  member.first = arrival;
  PutBack(name, member);
  Forget();
}

std::optional<std::string> TurnQueue::Next() const {
  if (turns_.empty()) return std::nullopt;
  return std::get<std::string>(*turns_.begin());
}

void TurnQueue::Begin(const std::string& name, bool its_turn) {
  Member& member = members_[name];
  TakeOut(name, member);
  ++member.served;
  ++served_;
  if (its_turn) virtual_time_ = std::max(virtual_time_, member.tag);
  PutBack(name, member);
  Forget();
}

void TurnQueue::Charge(const std::string& name, double amount) {
  Member& member = members_[name];
  TakeOut(name, member);
  member.tag += amount;
  --member.served;
  --served_;
  PutBack(name, member);
  Forget();
}

// Takes a member off its list, which is sorted by tags.
void TurnQueue::TakeOut(const std::string& name, const Member& member) {
  if (member.first) turns_.erase({member.tag, *member.first, name});
  resting_.erase({member.tag, name});
}

// Puts a member on the list that it belongs to.
void TurnQueue::PutBack(const std::string& name, const Member& member) {
  if (member.first) {
    turns_.insert({member.tag, *member.first, name});
  } else if (member.served == 0) {
    resting_.insert({member.tag, name});
  }
}

// Forgets resting members that had no more than their share, and all members if
// none wants or gets service.
void TurnQueue::Forget() {
  if (turns_.empty() && served_ == 0) {
    members_.clear();
    resting_.clear();
    virtual_time_ = 0;
    return;
  }
  while (!resting_.empty() && resting_.begin()->first <= virtual_time_) {
    members_.erase(resting_.begin()->second);
    resting_.erase(resting_.begin());
  }
}

}  // namespace backboned
