// Who pays for memory, and the error of who cannot.

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

  // What to tell the client.
  const absl::Status& status() const { return status_; }

  const char* what() const noexcept override { return "over a memory limit"; }

 private:
  absl::Status status_;
};

// A count of live bytes with an optional limit. It never waits.
//
// Thread-safe.
class MemoryAccount {
 public:
  struct Options {
    // What errors call the limit: the server's option without dashes in front.
    std::string name;
    int64_t limit_bytes = kUnlimitedBytes;
    // Whose use it counts.
    LimitScope scope = LimitScope::kServer;
    // What is charged here counts there too. Null: nowhere else.
    std::shared_ptr<MemoryAccount> parent = nullptr;
  };

  explicit MemoryAccount(Options options);

  // An account of its own, for all.
  explicit MemoryAccount(std::string name,
                         int64_t limit_bytes = kUnlimitedBytes)
      : MemoryAccount(
            Options{.name = std::move(name), .limit_bytes = limit_bytes}) {}

  MemoryAccount(const MemoryAccount&) = delete;
  MemoryAccount& operator=(const MemoryAccount&) = delete;

  // Adds `bytes`, which is not negative.
  //
  // Returns kResourceExhausted (LimitReached) if that would pass the limit, or
  // one of a parent, with a retry delay where it can fit later. Nothing is
  // added then.
  absl::Status Charge(int64_t bytes);

  // Takes `bytes` that were charged off again.
  void Refund(int64_t bytes);

  // Replaces the limit. What is live already stays.
  void SetLimit(int64_t limit_bytes);

  // Bytes charged and not refunded.
  int64_t live_bytes() const {
    return live_bytes_.load(std::memory_order_relaxed);
  }

  // The most that `live_bytes` has ever been.
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
  std::atomic<int64_t> limit_bytes_;
  std::atomic<int64_t> live_bytes_ = 0;
  std::atomic<int64_t> peak_bytes_ = 0;
};

// While it lives, what this thread allocates from any MemoryRoom counts for
// `account` until it is freed, wherever that is. Scopes nest; the innermost
// counts, and one without an account suspends the others. OpenMP's threads are
// not in it: what they allocate inside a loop of LibTorch's counts for the room
// only.
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
