#include "server/limits/memory_account.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/limits/quotas.h"

namespace backboned {
namespace {

// The usual time that a call holds its bytes.
constexpr absl::Duration kRetryDelay = absl::Milliseconds(100);

thread_local const ScopedAccount* innermost = nullptr;

absl::Status OverLimit(const std::string& name, LimitScope scope, int64_t bytes,
                       int64_t live, int64_t limit) {
  // The sum may exceed 64 bits.
  const int64_t requested =
      bytes > kUnlimitedBytes - live ? kUnlimitedBytes : live + bytes;
  return NoRoom(
      {.name = name,
       .value = limit,
       .requested = requested,
       .retry_delay = bytes <= limit ? kRetryDelay : absl::ZeroDuration(),
       .scope = scope},
      live, absl::StrCat(bytes, " more bytes"));
}

}  // namespace

MemoryAccount::MemoryAccount(Options options)
    : name_(std::move(options.name)),
      scope_(options.scope),
      parent_(std::move(options.parent)),
      on_gpus_(std::move(options.on_gpus)),
      limit_bytes_(options.limit_bytes) {}

absl::Status MemoryAccount::Charge(int64_t bytes) {
  absl::Status charged = ChargeThis(bytes);
  if (!charged.ok() || parent_ == nullptr) return charged;
  charged = parent_->Charge(bytes);
  if (!charged.ok()) live_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  return charged;
}

absl::Status MemoryAccount::ChargeThis(int64_t bytes) {
  const int64_t limit = limit_bytes();
  int64_t live = live_bytes();
  do {
    if (bytes > limit - live) {
      return OverLimit(name_, scope_, bytes, live, limit);
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
  if (parent_ != nullptr) parent_->Refund(bytes);
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
