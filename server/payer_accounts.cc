#include "server/payer_accounts.h"

#include <algorithm>
#include <utility>

namespace backboned {
namespace {

constexpr char kName[] = "max-memory-bytes";

template <typename Key>
int64_t LiveBytes(const std::map<Key, std::weak_ptr<MemoryAccount>>& accounts,
                  const Key& key) {
  const auto found = accounts.find(key);
  if (found == accounts.end()) return 0;
  const std::shared_ptr<MemoryAccount> account = found->second.lock();
  return account == nullptr ? 0 : account->live_bytes();
}

}  // namespace

std::shared_ptr<MemoryAccount> PayerAccounts::Of(const Payer& payer) {
  absl::MutexLock lock(&mutex_);
  if (by_session_.size() >= forget_at_) ForgetUnused();
  std::weak_ptr<MemoryAccount>& known = by_session_[payer];
  std::shared_ptr<MemoryAccount> account = known.lock();
  if (account != nullptr) return account;
  account = std::make_shared<MemoryAccount>(MemoryAccount::Options{
      .name = kName,
      .limit_bytes = LimitOf(LimitScope::kSession, payer),
      .scope = LimitScope::kSession,
      .parent = PrincipalsOf(payer)});
  known = account;
  return account;
}

int64_t PayerAccounts::live_bytes(LimitScope scope, const Payer& payer) const {
  absl::MutexLock lock(&mutex_);
  return scope == LimitScope::kSession
             ? LiveBytes(by_session_, payer)
             : LiveBytes(by_principal_, payer.principal);
}

size_t PayerAccounts::known_sessions() const {
  absl::MutexLock lock(&mutex_);
  return by_session_.size();
}

std::shared_ptr<MemoryAccount> PayerAccounts::PrincipalsOf(const Payer& payer) {
  std::weak_ptr<MemoryAccount>& known = by_principal_[payer.principal];
  std::shared_ptr<MemoryAccount> account = known.lock();
  if (account != nullptr) return account;
  account = std::make_shared<MemoryAccount>(MemoryAccount::Options{
      .name = kName,
      .limit_bytes = LimitOf(LimitScope::kPrincipal, payer),
      .scope = LimitScope::kPrincipal});
  known = account;
  return account;
}

// Who may use all is limited by what there is.
int64_t PayerAccounts::LimitOf(LimitScope scope, const Payer& payer) const {
  return quotas_.Fraction(scope, payer) < 1
             ? quotas_.Part(scope, payer, limit_bytes_)
             : kUnlimitedBytes;
}

// Forgets accounts that nothing counts for any more. Called each time as many
// are known as twice were in use: each costs its part of one walk.
void PayerAccounts::ForgetUnused() {
  std::erase_if(by_session_,
                [](const auto& each) { return each.second.expired(); });
  std::erase_if(by_principal_,
                [](const auto& each) { return each.second.expired(); });
  forget_at_ = std::max(size_t{64}, 2 * by_session_.size());
}

}  // namespace backboned
