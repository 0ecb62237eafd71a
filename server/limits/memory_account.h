// Counts live memory for its payer, within a limit.

#ifndef BACKBONED_SERVER_LIMITS_MEMORY_ACCOUNT_H_
#define BACKBONED_SERVER_LIMITS_MEMORY_ACCOUNT_H_

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "base/errors.h"

namespace backboned {

// No limit, as a number of bytes.
inline constexpr int64_t kUnlimitedBytes = std::numeric_limits<int64_t>::max();

// Thrown by an allocation that would pass a limit, before anything is
// allocated.
class OutOfMemoryBudget : public std::bad_alloc {
 public:
  // `status` is kResourceExhausted (LimitReached) and names the limit.
  explicit OutOfMemoryBudget(absl::Status status)
      : status_(std::move(status)) {}

  // The error for the client.
  const absl::Status& status() const { return status_; }

  const char* what() const noexcept override { return "over a memory limit"; }

 private:
  absl::Status status_;
};

// Counts live bytes, with an optional limit. Never waits.
//
// Thread-safe.
class MemoryAccount {
 public:
  struct Options {
    // The limit's name in errors: the server's option without leading dashes.
    std::string name;
    int64_t limit_bytes = kUnlimitedBytes;
    // The scope of the limit: whose bytes this account counts.
    LimitScope scope = LimitScope::kServer;
    // Counts the same bytes too. Null: no parent.
    std::shared_ptr<MemoryAccount> parent = nullptr;
    // Counts the payer's memory on GPUs, as this one counts the host's. Null:
    // nobody counts it.
    std::shared_ptr<MemoryAccount> on_gpus = nullptr;
  };

  explicit MemoryAccount(Options options);

  // Makes an account for all, without a parent.
  explicit MemoryAccount(std::string name,
                         int64_t limit_bytes = kUnlimitedBytes)
      : MemoryAccount(
            Options{.name = std::move(name), .limit_bytes = limit_bytes}) {}

  MemoryAccount(const MemoryAccount&) = delete;
  MemoryAccount& operator=(const MemoryAccount&) = delete;

  // Adds `bytes`, which is not negative.
  //
  // Returns kResourceExhausted (LimitReached) if the limit, or a parent's,
  // would be passed, with a retry delay if `bytes` can fit later. Nothing is
  // added then.
  absl::Status Charge(int64_t bytes);

  // Subtracts `bytes` that were charged.
  void Refund(int64_t bytes);

  // The payer's account of memory on GPUs, or null.
  const std::shared_ptr<MemoryAccount>& on_gpus() const { return on_gpus_; }

  // Replaces the limit. Live bytes stay.
  void SetLimit(int64_t limit_bytes);

  // The bytes charged and not refunded.
  int64_t live_bytes() const {
    return live_bytes_.load(std::memory_order_relaxed);
  }

  // The payer's bytes on GPUs.
  int64_t live_bytes_on_gpus() const {
    return on_gpus_ == nullptr ? 0 : on_gpus_->live_bytes();
  }

  // The highest value of `live_bytes` so far.
  int64_t peak_bytes() const {
    return peak_bytes_.load(std::memory_order_relaxed);
  }

  // The limit, or kUnlimitedBytes.
  int64_t limit_bytes() const {
    return limit_bytes_.load(std::memory_order_relaxed);
  }

 private:
  absl::Status ChargeThis(int64_t bytes);

  const std::string name_;
  const LimitScope scope_;
  const std::shared_ptr<MemoryAccount> parent_;
  const std::shared_ptr<MemoryAccount> on_gpus_;
  std::atomic<int64_t> limit_bytes_;
  std::atomic<int64_t> live_bytes_ = 0;
  std::atomic<int64_t> peak_bytes_ = 0;
};

// Charges `account` with this thread's allocations from any MemoryRoom while
// the scope lives; each counts until it is freed, on whatever thread. Scopes
// nest; the innermost counts, and one without an account suspends the others.
// OpenMP's threads are outside: their allocations in a loop of LibTorch's count
// for the room only.
//
// Leave the scopes of a thread in the reverse order of their entry.
class ScopedAccount {
 public:
  explicit ScopedAccount(std::shared_ptr<MemoryAccount> account);
  ~ScopedAccount();

  ScopedAccount(const ScopedAccount&) = delete;
  ScopedAccount& operator=(const ScopedAccount&) = delete;

  // The account of this thread's innermost scope, or null.
  static std::shared_ptr<MemoryAccount> Current();

 private:
  const std::shared_ptr<MemoryAccount> account_;
  const ScopedAccount* const outer_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_MEMORY_ACCOUNT_H_
