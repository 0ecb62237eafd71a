#include "server/limits/payer_accounts.h"

namespace backboned {

std::shared_ptr<MemoryAccount> PayerAccounts::Of(const Payer& payer) {
  const auto make = [&](LimitScope scope,
                        std::shared_ptr<MemoryAccount> parent) {
    return std::make_shared<MemoryAccount>(
        MemoryAccount::Options{.name = "max-memory-bytes",
                               .limit_bytes = LimitOf(scope, payer),
                               .scope = scope,
                               .parent = std::move(parent)});
  };
  absl::MutexLock lock(&mutex_);
  accounts_.ForgetIdle();
  const auto [session, principal, all] = accounts_.Of(payer);
  if (*principal == nullptr) *principal = make(LimitScope::kPrincipal, nullptr);
  if (*session == nullptr) *session = make(LimitScope::kSession, *principal);
  return *session;
}

int64_t PayerAccounts::live_bytes(LimitScope scope, const Payer& payer) const {
  absl::MutexLock lock(&mutex_);
  const std::shared_ptr<MemoryAccount> account = accounts_.Get(scope, payer);
  return account == nullptr ? 0 : account->live_bytes();
}

size_t PayerAccounts::known_sessions() const {
  absl::MutexLock lock(&mutex_);
  return accounts_.session_count();
}

// A payer that may use all is limited by the memory room alone.
int64_t PayerAccounts::LimitOf(LimitScope scope, const Payer& payer) const {
  return quotas_.Fraction(scope, payer) < 1
             ? quotas_.Part(scope, payer, limit_bytes_)
             : kUnlimitedBytes;
}

}  // namespace backboned
