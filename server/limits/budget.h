// A limit on what is taken and given back.

#ifndef BACKBONED_SERVER_LIMITS_BUDGET_H_
#define BACKBONED_SERVER_LIMITS_BUDGET_H_

#include <cstdint>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/token.h"
#include "server/limits/ledger.h"
#include "server/limits/quotas.h"

namespace backboned {

// Admits calls, instances or bytes before any of them is there, within a limit
// of all and within each payer's part of it.
//
// It never waits: over the limit is refused at once, since calls that wait
// would fill the connection that the freeing call needs.
//
// Thread-safe. Must outlive its reservations.
class Budget {
 public:
  struct Part {
    Payer payer;
    int64_t amount = 0;
  };

  // A part of the budget, taken until this object is gone. Not thread-safe.
  class Reservation : public Token<Budget, Part> {
   public:
    using Token::Token;
    int64_t amount() const { return right().amount; }
  };

  struct Options {
    // What errors call it: the server's option without dashes in front.
    std::string name;
    // One of what there is of it, for messages: `call`.
    std::string unit = "byte";
    int64_t limit = 0;
    Quotas quotas = {};
    // About how long something is held. Zero: until somebody gives it up.
    absl::Duration retry_delay = absl::ZeroDuration();
  };

  explicit Budget(Options options) : options_(std::move(options)) {}

  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // Takes `amount`.
  //
  // Returns kResourceExhausted (LimitReached) if that would pass the limit, or
  // the payer's part of it, with a retry delay where it can fit later;
  // kInvalidArgument (kInvalidOption) if it is negative. Nothing is taken then.
  absl::StatusOr<Reservation> Reserve(const Payer& payer, int64_t amount);

  // Makes `held` of `payer`, taken here or empty, as large as `amount`. What is
  // less always fits; what is more is refused as by Reserve, and nothing has
  // changed then.
  absl::Status Resize(Reservation& held, const Payer& payer, int64_t amount);

  // What Reserve would return now.
  absl::Status Check(const Payer& payer, int64_t amount) const;

  // How much there is.
  int64_t limit() const { return options_.limit; }

  // How much is taken: by all, by a principal, by a session.
  int64_t used() const;
  int64_t used(LimitScope scope, const Payer& payer) const;

 private:
  friend class Token<Budget, Part>;

  void GiveBack(const Part& part);
  absl::Status CheckNotNegative(int64_t amount) const;
  absl::Status CheckLocked(const Payer& payer, int64_t amount) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Add(const Payer& payer, int64_t amount)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;

  mutable absl::Mutex mutex_;
  Ledger<int64_t> used_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_BUDGET_H_
