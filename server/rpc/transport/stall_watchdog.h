// Ends calls whose client makes no progress.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_STALL_WATCHDOG_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_STALL_WATCHDOG_H_

#include <cstdint>
#include <functional>
#include <thread>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace backboned::rpc {

// Watches all transfers on a thread, and cancels those that move too little for
// too long. A synchronous read has no timeout of its own, and HTTP/2's
// keepalive is content with a peer that sends a byte a minute.
//
// Thread-safe.
class StallWatchdog {
 public:
  // The bytes that a transfer must move within the timeout, unless it ends. A
  // message counts when all of it has moved.
  static constexpr int64_t kProgressBytes = 64 << 10;

  // A transfer ends after this number of timeouts, whatever it moves, since
  // other calls wait for what it holds.
  static constexpr int kMostTimeouts = 60;

  // Cancels transfers that move less than kProgressBytes in `timeout`, by
  // `clock`, or last for kMostTimeouts of them. `clock` must outlive the
  // watchdog.
  explicit StallWatchdog(absl::Duration timeout,
                         const Clock& clock = MonotonicClock());
  ~StallWatchdog();

  StallWatchdog(const StallWatchdog&) = delete;
  StallWatchdog& operator=(const StallWatchdog&) = delete;

  // A transfer under watch, from its construction to its destruction.
  class Transfer {
   public:
    // The watchdog's thread calls `cancel`, at most once.
    Transfer(StallWatchdog& watchdog, std::function<void()> cancel);
    ~Transfer();

    Transfer(const Transfer&) = delete;
    Transfer& operator=(const Transfer&) = delete;

    // Notes that `bytes` moved.
    void Moved(int64_t bytes);

    // Returns whether the watchdog ended the transfer.
    bool stalled() const;

   private:
    friend class StallWatchdog;
    StallWatchdog& watchdog_;
    const std::function<void()> cancel_;
    const absl::Time begin_;
    // All guarded by watchdog_.mutex_.
    absl::Time progress_;
    int64_t moved_bytes_ = 0;
    bool stalled_ = false;
  };

 private:
  void Watch();
  void CancelStalled(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration timeout_;
  const Clock& clock_;
  absl::Mutex mutex_;
  MonotonicCondVar ended_;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::unordered_set<Transfer*> transfers_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_STALL_WATCHDOG_H_
