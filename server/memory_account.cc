#include "server/memory_account.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "backbones/errors.h"

namespace backboned {
namespace {

// About as long as a call holds its bytes.
constexpr absl::Duration kRetryDelay = absl::Milliseconds(100);

thread_local const ScopedAccount* innermost = nullptr;

absl::Status OverLimit(std::string_view name, int64_t bytes, int64_t live,
                       int64_t limit) {
  // The sum may pass what 64 bits hold.
  const int64_t requested =
      bytes > kUnlimitedBytes - live ? kUnlimitedBytes : live + bytes;
  return LimitReached(
      {.name = std::string(name),
       .value = limit,
       .requested = requested,
       .retry_delay = bytes <= limit ? kRetryDelay : absl::ZeroDuration()},
      absl::StrCat(bytes, " bytes do not fit into ",
                   absl::string_view(name.data(), name.size()), ": ", live,
                   " of ", limit, " bytes are in use"));
}

}  // namespace

MemoryAccount::MemoryAccount(std::string name, int64_t limit_bytes)
    : name_(std::move(name)), limit_bytes_(limit_bytes) {}

absl::Status MemoryAccount::Charge(int64_t bytes) {
  const int64_t limit = limit_bytes();
  int64_t live = live_bytes();
  do {
    if (bytes > limit - live) {
      return OverLimit(name_, bytes, live, limit);
    }
  } while (!live_bytes_.compare_exchange_weak(live, live + bytes,
                                              std::memory_order_relaxed));
  int64_t peak = peak_bytes();
  while (live + bytes > peak &&
         !peak_bytes_.compare_exchange_weak(peak, live + bytes,
                                            std::memory_order_relaxed)) {
  }
  return absl::OkStatus();
}

void MemoryAccount::Refund(int64_t bytes) {
  live_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
}

void MemoryAccount::SetLimit(int64_t limit_bytes) {
  limit_bytes_.store(limit_bytes, std::memory_order_relaxed);
}

ScopedAccount::ScopedAccount(std::shared_ptr<MemoryAccount> account)
    : account_(std::move(account)), outer_(std::exchange(innermost, this)) {}

ScopedAccount::~ScopedAccount() { innermost = outer_; }

std::shared_ptr<MemoryAccount> ScopedAccount::Current() {
  return innermost == nullptr ? nullptr : innermost->account_;
}

}  // namespace backboned
