// Keeps an account of memory for each principal and session.

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
  // The limits of all: of the host's memory, and of that of all GPUs together.
  // Errors call them `max-memory-bytes` and `max-device-memory-bytes`. Only the
  // second is compared with the bytes of all here; the memory room does the
  // first.
  PayerAccounts(int64_t limit_bytes, int64_t gpu_limit_bytes, Quotas quotas);

  // Returns the account of a session: the same one as long as it has live bytes
  // or a holder.
  std::shared_ptr<MemoryAccount> Of(const Payer& payer);

  // The number of known sessions; unused ones are forgotten at times.
  size_t known_sessions() const;

  // The live bytes within `scope` of `payer`, on the host or on GPUs.
  int64_t live_bytes(LimitScope scope, const Payer& payer) const;
  int64_t live_bytes_on_gpus(LimitScope scope, const Payer& payer) const;

  // The live bytes of each principal that is known.
  struct LiveBytes {
    int64_t on_host = 0;
    int64_t on_gpus = 0;
  };
  std::map<std::string, LiveBytes> LiveByPrincipal() const;

 private:
  std::shared_ptr<MemoryAccount> Make(
      LimitScope scope, const Payer& payer,
      const std::shared_ptr<MemoryAccount>& parent) const;
  int64_t LimitOf(LimitScope scope, const Payer& payer, int64_t of_all) const;

  // Tells an account that only the ledger has: what counts for one has it.
  struct IsUnused {
    bool operator()(const std::shared_ptr<MemoryAccount>& account) const {
      return account.use_count() == 1;
    }
  };

  const int64_t limit_bytes_;
  const Quotas quotas_;
  const std::shared_ptr<MemoryAccount> all_on_gpus_;

  mutable absl::Mutex mutex_;
  Ledger<std::shared_ptr<MemoryAccount>, IsUnused> accounts_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_PAYER_ACCOUNTS_H_
