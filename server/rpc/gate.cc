#include "server/rpc/gate.h"

#include "absl/strings/str_cat.h"
#include "backbones/errors.h"

namespace backboned::rpc {
namespace {

constexpr absl::Duration kRetryDelay = absl::Milliseconds(100);

}  // namespace

Gate::Pass::~Pass() {
  if (gate_ == nullptr) return;
  absl::MutexLock lock(&gate_->mutex_);
  --gate_->calls_;
}

absl::StatusOr<Gate::Pass> Gate::Enter() {
  absl::MutexLock lock(&mutex_);
  if (draining_) {
    return Error(absl::StatusCode::kUnavailable, Reason::kDraining,
                 "the server is shutting down");
  }
  if (calls_ >= max_calls_) {
    return LimitReached(
        {.name = "max-calls",
         .value = max_calls_,
         .requested = calls_ + 1,
         .retry_delay = kRetryDelay},
        absl::StrCat("too many calls at once: ", calls_,
                     " are being served, the limit is ", max_calls_));
  }
  ++calls_;
  return Pass(this);
}

void Gate::Drain() {
  absl::MutexLock lock(&mutex_);
  draining_ = true;
}

bool Gate::WaitUntilEmpty(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(
      absl::Condition(
          +[](int64_t* calls) { return *calls == 0; }, &calls_),
      timeout);
}

}  // namespace backboned::rpc
