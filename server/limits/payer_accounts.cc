#include "server/limits/payer_accounts.h"

namespace backboned {
namespace {

constexpr char kGpuLimit[] = "max-device-memory-bytes";

}  // namespace

PayerAccounts::PayerAccounts(int64_t limit_bytes, int64_t gpu_limit_bytes,
                             Quotas quotas)
    : limit_bytes_(limit_bytes),
      quotas_(std::move(quotas)),
      all_on_gpus_(
          std::make_shared<MemoryAccount>(kGpuLimit, gpu_limit_bytes)) {}

std::shared_ptr<MemoryAccount> PayerAccounts::Of(const Payer& payer) {
  absl::MutexLock lock(&mutex_);
  accounts_.ForgetIdle();
  const auto [session, principal, all] = accounts_.Of(payer);
  if (*principal == nullptr) {
    *principal = Make(LimitScope::kPrincipal, payer, nullptr);
  }
  if (*session == nullptr) {
    *session = Make(LimitScope::kSession, payer, *principal);
  }
  return *session;
}

// `parent`: null for a principal.
std::shared_ptr<MemoryAccount> PayerAccounts::Make(
    LimitScope scope, const Payer& payer,
    const std::shared_ptr<MemoryAccount>& parent) const {
  const int64_t gpu_limit = LimitOf(scope, payer, all_on_gpus_->limit_bytes());
  auto on_gpus = std::make_shared<MemoryAccount>(MemoryAccount::Options{
      .name = kGpuLimit,
      .limit_bytes = gpu_limit,
      .scope = scope,
      .parent = parent == nullptr ? all_on_gpus_ : parent->on_gpus()});
  return std::make_shared<MemoryAccount>(
      MemoryAccount::Options{.name = "max-memory-bytes",
                             .limit_bytes = LimitOf(scope, payer, limit_bytes_),
                             .scope = scope,
                             .parent = parent,
                             .on_gpus = std::move(on_gpus)});
}

int64_t PayerAccounts::live_bytes(LimitScope scope, const Payer& payer) const {
  absl::MutexLock lock(&mutex_);
  const std::shared_ptr<MemoryAccount> account = accounts_.Get(scope, payer);
  return account == nullptr ? 0 : account->live_bytes();
}

int64_t PayerAccounts::live_bytes_on_gpus(LimitScope scope,
                                          const Payer& payer) const {
  absl::MutexLock lock(&mutex_);
  const std::shared_ptr<MemoryAccount> account = accounts_.Get(scope, payer);
  return account == nullptr ? 0 : account->live_bytes_on_gpus();
}

std::map<std::string, PayerAccounts::LiveBytes> PayerAccounts::LiveByPrincipal()
    const {
  absl::MutexLock lock(&mutex_);
  std::map<std::string, LiveBytes> live;
  for (const auto& [principal, account] : accounts_.by_principal()) {
    if (account == nullptr) continue;
    live[principal] = {.on_host = account->live_bytes(),
                       .on_gpus = account->live_bytes_on_gpus()};
  }
  return live;
}

size_t PayerAccounts::known_sessions() const {
  absl::MutexLock lock(&mutex_);
  return accounts_.session_count();
}

// A payer that may use all is limited by the limit of all alone.
int64_t PayerAccounts::LimitOf(LimitScope scope, const Payer& payer,
                               int64_t of_all) const {
  return quotas_.Fraction(scope, payer) < 1 ? quotas_.Part(scope, payer, of_all)
                                            : kUnlimitedBytes;
}

}  // namespace backboned
