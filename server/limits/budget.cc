#include "server/limits/budget.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

// Returns the sum, or the largest number if the sum exceeds it.
int64_t SaturatingAdd(int64_t a, int64_t b) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  return b > kMost - a ? kMost : a + b;
}

}  // namespace

absl::StatusOr<Budget::Reservation> Budget::Reserve(const Payer& payer,
                                                    int64_t amount) {
  absl::MutexLock lock(&mutex_);
  absl::Status room = CheckLocked(payer, amount);
  if (!room.ok()) return room;
  Add(payer, amount);
  return Reservation(this, {payer, amount});
}

Budget::Reservation Budget::Take(const Payer& payer, int64_t amount) {
  absl::MutexLock lock(&mutex_);
  Add(payer, amount);
  return Reservation(this, {payer, amount});
}

absl::Status Budget::Resize(Reservation& held, const Payer& payer,
                            int64_t amount) {
  absl::Status valid = CheckNotNegative(amount);
  if (!valid.ok()) return valid;
  absl::MutexLock lock(&mutex_);
  const int64_t more = amount - held.amount();
  if (more > 0) {
    absl::Status room = CheckLocked(payer, more);
    if (!room.ok()) return room;
  }
  Add(payer, more);
  held.Take();
  held = Reservation(this, {payer, amount});
  return absl::OkStatus();
}

absl::Status Budget::Check(const Payer& payer, int64_t amount) const {
  absl::MutexLock lock(&mutex_);
  return CheckLocked(payer, amount);
}

int64_t Budget::used() const {
  absl::MutexLock lock(&mutex_);
  return used_.all();
}

int64_t Budget::used(LimitScope scope, const Payer& payer) const {
  absl::MutexLock lock(&mutex_);
  return used_.Get(scope, payer);
}

void Budget::GiveBack(const Part& part) {
  absl::MutexLock lock(&mutex_);
  Add(part.payer, -part.amount);
}

absl::Status Budget::CheckNotNegative(int64_t amount) const {
  if (amount >= 0) return absl::OkStatus();
  return InvalidOption(absl::StrCat("the call asks for ", amount, " ",
                                    options_.unit, "s of ", options_.name,
                                    ", must be at least 0"));
}

absl::Status Budget::CheckLocked(const Payer& payer, int64_t amount) const {
  absl::Status valid = CheckNotNegative(amount);
  if (!valid.ok()) return valid;
  for (const LimitScope scope : kScopes) {
    if (!options_.quotas.IsLimited(scope, payer)) continue;
    const int64_t limit = options_.quotas.Part(scope, payer, options_.limit);
    const int64_t used = used_.Get(scope, payer);
    if (amount <= limit - used) continue;
    return NoRoom(
        {.name = options_.name,
         .value = limit,
         .requested = SaturatingAdd(used, amount),
         .retry_delay =
             amount <= limit ? options_.retry_delay : absl::ZeroDuration(),
         .scope = scope},
        used,
        absl::StrCat(amount, " more ", options_.unit, amount == 1 ? "" : "s"));
  }
  return absl::OkStatus();
}

void Budget::Add(const Payer& payer, int64_t amount) {
  for (int64_t* used : used_.Of(payer)) *used += amount;
  used_.ForgetIdle();
}

}  // namespace backboned
