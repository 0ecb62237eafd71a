#include "server/limits/budget.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

// What `key` uses, of those that use something.
template <typename Key>
int64_t UsedBy(const std::map<Key, int64_t>& users, const Key& key) {
  const auto found = users.find(key);
  return found == users.end() ? 0 : found->second;
}

// Forgets those that use nothing.
template <typename Key>
void ForgetIdle(std::map<Key, int64_t>& users) {
  std::erase_if(users, [](const auto& user) { return user.second == 0; });
}

// The sum, or the largest number, where it is more.
int64_t SaturatingAdd(int64_t a, int64_t b) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  return b > kMost - a ? kMost : a + b;
}

}  // namespace

Budget::Reservation::Reservation(Budget* budget, Payer payer, int64_t amount)
    : budget_(budget), payer_(std::move(payer)), amount_(amount) {}

Budget::Reservation::Reservation(Reservation&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)),
      payer_(std::move(other.payer_)),
      amount_(std::exchange(other.amount_, 0)) {}

Budget::Reservation& Budget::Reservation::operator=(
    Reservation&& other) noexcept {
  if (this != &other) {
    Release();
    budget_ = std::exchange(other.budget_, nullptr);
    payer_ = std::move(other.payer_);
    amount_ = std::exchange(other.amount_, 0);
  }
  return *this;
}

Budget::Reservation::~Reservation() { Release(); }

void Budget::Reservation::Release() {
  if (budget_ == nullptr) return;
  Budget& budget = *std::exchange(budget_, nullptr);
  absl::MutexLock lock(&budget.mutex_);
  budget.Add(payer_, -std::exchange(amount_, 0));
}

absl::StatusOr<Budget::Reservation> Budget::Reserve(const Payer& payer,
                                                    int64_t amount) {
  if (amount == 0) return Reservation();
  absl::MutexLock lock(&mutex_);
  absl::Status room = CheckLocked(payer, amount);
  if (!room.ok()) return room;
  Add(payer, amount);
  return Reservation(this, payer, amount);
}

absl::Status Budget::Resize(Reservation& held, const Payer& payer,
                            int64_t amount) {
  absl::Status valid = CheckNotNegative(amount);
  if (!valid.ok()) return valid;
  absl::MutexLock lock(&mutex_);
  const int64_t more = amount - held.amount_;
  if (more > 0) {
    absl::Status room = CheckLocked(payer, more);
    if (!room.ok()) return room;
  }
  Add(payer, more);
  held.budget_ = this;
  held.payer_ = payer;
  held.amount_ = amount;
  return absl::OkStatus();
}

absl::Status Budget::Check(const Payer& payer, int64_t amount) const {
  absl::MutexLock lock(&mutex_);
  return CheckLocked(payer, amount);
}

int64_t Budget::used() const {
  absl::MutexLock lock(&mutex_);
  return used_;
}

int64_t Budget::used(LimitScope scope, const Payer& payer) const {
  absl::MutexLock lock(&mutex_);
  return UsedLocked(scope, payer);
}

absl::Status Budget::CheckNotNegative(int64_t amount) const {
  if (amount >= 0) return absl::OkStatus();
  return InvalidOption(absl::StrCat(amount, " ", options_.unit, "s of ",
                                    options_.name, " cannot be taken"));
}

absl::Status Budget::CheckLocked(const Payer& payer, int64_t amount) const {
  absl::Status valid = CheckNotNegative(amount);
  if (!valid.ok()) return valid;
  for (const LimitScope scope : kScopes) {
    if (!options_.quotas.IsLimited(scope, payer)) continue;
    const int64_t limit = options_.quotas.Part(scope, payer, options_.limit);
    const int64_t used = UsedLocked(scope, payer);
    if (amount <= limit - used) continue;
    return NoRoom({.name = options_.name,
                   .value = limit,
                   .requested = SaturatingAdd(used, amount),
                   .retry_delay = amount <= limit ? options_.retry_delay
                                                  : absl::ZeroDuration(),
                   .scope = scope},
                  used,
                  absl::StrCat("no room for ", amount, " more ", options_.unit,
                               amount == 1 ? "" : "s"));
  }
  return absl::OkStatus();
}

int64_t Budget::UsedLocked(LimitScope scope, const Payer& payer) const {
  switch (scope) {
    case LimitScope::kSession:
      return UsedBy(by_session_, payer);
    case LimitScope::kPrincipal:
      return UsedBy(by_principal_, payer.principal);
    default:
      return used_;
  }
}

void Budget::Add(const Payer& payer, int64_t amount) {
  used_ += amount;
  by_principal_[payer.principal] += amount;
  by_session_[payer] += amount;
  if (by_session_.size() < forget_at_) return;
  ForgetIdle(by_principal_);
  ForgetIdle(by_session_);
  forget_at_ = std::max(kForgetAt, 2 * by_session_.size());
}

}  // namespace backboned
