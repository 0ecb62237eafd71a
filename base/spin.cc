#include "base/spin.h"

#include <sched.h>

#include <cstdlib>

#include "absl/strings/match.h"

namespace backboned {

Spin::Spin(bool may_poll, const Clock& clock)
    : may_poll_(may_poll), clock_(clock) {}

bool Spin::MayPoll() {
  const char* const policy = std::getenv("OMP_WAIT_POLICY");
  return policy == nullptr || !absl::EqualsIgnoreCase(policy, "passive");
}

bool Spin::Poll(absl::FunctionRef<bool()> poll) {
  begun_ = clock_.Now();
  while (!poll()) {
    if (!polls_ || clock_.Now() - begun_ > kLongest) return false;
    sched_yield();
  }
  return true;
}

void Spin::Woke() { polls_ = may_poll_ && clock_.Now() - begun_ <= kLongest; }

}  // namespace backboned
