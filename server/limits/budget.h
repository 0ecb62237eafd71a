// Limits an amount that is taken and given back.

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

// Admits calls, instances or bytes before they exist, within a limit for all
// and each payer's part of it.
//
// Never waits: an amount over the limit is refused at once, since calls that
// wait would fill the connection that the freeing call needs.
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
    // The limit's name in errors: the server's option without leading dashes.
    std::string name;
    // The name of one unit in messages: `call`.
    std::string unit = "byte";
    int64_t limit = 0;
    Quotas quotas = {};
    // The usual time until it is given back. Zero: a client decides.
    absl::Duration retry_delay = absl::ZeroDuration();
  };

  explicit Budget(Options options) : options_(std::move(options)) {}

  Budget(const Budget&) = delete;
  Budget& operator=(const Budget&) = delete;

  // Takes `amount`.
  //
  // Returns kResourceExhausted (LimitReached) over the limit or the payer's
  // part of it, with a retry delay if `amount` can fit later; kInvalidArgument
  // (kInvalidOption) if `amount` is negative. Nothing is taken then.
  absl::StatusOr<Reservation> Reserve(const Payer& payer, int64_t amount);

  // Takes `amount`, at least 0, of what is there already, even over the limit.
  Reservation Take(const Payer& payer, int64_t amount);

  // Changes `held`, a reservation of `payer` here or empty, to `amount`. A
  // smaller amount always fits; a larger one is refused as by Reserve, and
  // `held` stays.
  absl::Status Resize(Reservation& held, const Payer& payer, int64_t amount);

  // Returns the error that Reserve would return now, or OK.
  absl::Status Check(const Payer& payer, int64_t amount) const;

  // The limit of all.
  int64_t limit() const { return options_.limit; }

  // The amount that is taken: by all, or within `scope` of `payer`.
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
