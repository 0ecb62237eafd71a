// Who pays for the memory of tensors.

#ifndef BACKBONED_SERVER_LIMITS_PAYER_ACCOUNTS_H_
#define BACKBONED_SERVER_LIMITS_PAYER_ACCOUNTS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/limits/memory_account.h"
#include "server/limits/quotas.h"

namespace backboned {

// An account of memory for each principal, and in it one for each of its
// sessions, limited to their parts of a limit of all.
//
// Who had memory allocated pays for it until it is freed, whoever uses it by
// then.
//
// Thread-safe.
class PayerAccounts {
 public:
  // `limit_bytes`: of all; errors call it `max-memory-bytes`.
  PayerAccounts(int64_t limit_bytes, Quotas quotas)
      : limit_bytes_(limit_bytes), quotas_(std::move(quotas)) {}

  // The account of a session, the same one as long as anything counts for it,
  // or somebody has it.
  std::shared_ptr<MemoryAccount> Of(const Payer& payer);

  // Sessions that are known; unused ones are forgotten now and then.
  size_t known_sessions() const;

  // Bytes that count within `scope` of `payer`.
  int64_t live_bytes(LimitScope scope, const Payer& payer) const;

 private:
  int64_t LimitOf(LimitScope scope, const Payer& payer) const;
  const std::shared_ptr<MemoryAccount>& PrincipalsOf(const Payer& payer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetUnusedAccounts() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Unused accounts are forgotten when there are so many; then when there are
  // twice as many as were left.
  static constexpr size_t kForgetAt = 64;

  const int64_t limit_bytes_;
  const Quotas quotas_;

  mutable absl::Mutex mutex_;
  std::map<std::string, std::shared_ptr<MemoryAccount>> by_principal_
      ABSL_GUARDED_BY(mutex_);
  std::map<Payer, std::shared_ptr<MemoryAccount>> by_session_
      ABSL_GUARDED_BY(mutex_);
  size_t forget_at_ ABSL_GUARDED_BY(mutex_) = kForgetAt;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_PAYER_ACCOUNTS_H_
