// Keeps an account of memory for each principal and session.

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

// An account of memory for each principal, and within it one for each of its
// sessions, limited to their parts of a limit for all.
//
// The payer that allocated memory pays for it until it is freed, whoever uses
// it then.
//
// Thread-safe.
class PayerAccounts {
 public:
  // `limit_bytes`: the limit of all; errors call it `max-memory-bytes`.
  PayerAccounts(int64_t limit_bytes, Quotas quotas)
      : limit_bytes_(limit_bytes), quotas_(std::move(quotas)) {}

  // Returns the account of a session: the same one as long as it has live bytes
  // or a holder.
  std::shared_ptr<MemoryAccount> Of(const Payer& payer);

  // The number of known sessions; unused ones are forgotten at times.
  size_t known_sessions() const;

  // The live bytes within `scope` of `payer`.
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
