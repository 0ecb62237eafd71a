#include "server/limits/payer_accounts.h"

#include <algorithm>
#include <utility>

namespace backboned {
namespace {

constexpr char kName[] = "max-memory-bytes";

template <typename Key>
using Accounts = std::map<Key, std::shared_ptr<MemoryAccount>>;

template <typename Key>
int64_t LiveBytes(const Accounts<Key>& accounts, const Key& key) {
  const auto found = accounts.find(key);
  return found == accounts.end() ? 0 : found->second->live_bytes();
}

// Forgets accounts that only this map has. What counts for one has it.
template <typename Key>
void ForgetUnused(Accounts<Key>& accounts) {
  std::erase_if(accounts,
                [](const auto& each) { return each.second.use_count() == 1; });
}

}  // namespace

std::shared_ptr<MemoryAccount> PayerAccounts::Of(const Payer& payer) {
  absl::MutexLock lock(&mutex_);
  if (by_session_.size() >= forget_at_) ForgetUnusedAccounts();
  std::shared_ptr<MemoryAccount>& account = by_session_[payer];
  if (account == nullptr) {
    account = std::make_shared<MemoryAccount>(MemoryAccount::Options{
        .name = kName,
        .limit_bytes = LimitOf(LimitScope::kSession, payer),
        .scope = LimitScope::kSession,
        .parent = PrincipalsOf(payer)});
  }
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

const std::shared_ptr<MemoryAccount>& PayerAccounts::PrincipalsOf(
    const Payer& payer) {
  std::shared_ptr<MemoryAccount>& account = by_principal_[payer.principal];
  if (account == nullptr) {
    account = std::make_shared<MemoryAccount>(MemoryAccount::Options{
        .name = kName,
        .limit_bytes = LimitOf(LimitScope::kPrincipal, payer),
        .scope = LimitScope::kPrincipal});
  }
  return account;
}

// Who may use all is limited by what there is.
int64_t PayerAccounts::LimitOf(LimitScope scope, const Payer& payer) const {
  return quotas_.Fraction(scope, payer) < 1
             ? quotas_.Part(scope, payer, limit_bytes_)
             : kUnlimitedBytes;
}

// Called each time as many are known as twice were in use: each costs its part
// of one walk.
void PayerAccounts::ForgetUnusedAccounts() {
  ForgetUnused(by_session_);
  ForgetUnused(by_principal_);
  forget_at_ = std::max(kForgetAt, 2 * by_session_.size());
}

}  // namespace backboned
