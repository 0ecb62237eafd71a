// Who pays for the memory of tensors.

#ifndef BACKBONED_SERVER_LIMITS_PAYER_ACCOUNTS_H_
#define BACKBONED_SERVER_LIMITS_PAYER_ACCOUNTS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/limits/ledger.h"
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

  // Tells an account that only the ledger has: what counts for one has it.
  struct IsUnused {
    bool operator()(const std::shared_ptr<MemoryAccount>& account) const {
      return account.use_count() == 1;
    }
  };

  const int64_t limit_bytes_;
  const Quotas quotas_;

  mutable absl::Mutex mutex_;
  Ledger<std::shared_ptr<MemoryAccount>, IsUnused> accounts_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_PAYER_ACCOUNTS_H_
