// Goes on with a coroutine where another thread's event lets it.

#ifndef BACKBONED_SERVER_LIMITS_CONTINUATION_H_
#define BACKBONED_SERVER_LIMITS_CONTINUATION_H_

#include <coroutine>
#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/limits/memory_account.h"

namespace backboned {

// A suspended coroutine, which goes on under the account that was in force as
// it was suspended. It must have no ScopedAccount of its own open then, since
// that is a thread's.
class Continuation {
 public:
  explicit Continuation(std::coroutine_handle<> suspended)
      : suspended_(suspended), account_(ScopedAccount::Current()) {}

  // Runs the coroutine until it is suspended again, or has ended.
  void Resume() const {
    const std::coroutine_handle<> suspended = suspended_;
    const ScopedAccount scope(account_);
    suspended.resume();  // May destroy this object.
  }

 private:
  std::coroutine_handle<> suspended_;
  std::shared_ptr<MemoryAccount> account_;
};

// Lets the coroutine that awaits it run under `account` from then on.
class Under {
 public:
  explicit Under(std::shared_ptr<MemoryAccount> account)
      : account_(std::move(account)) {}

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> suspended) {
    const ScopedAccount scope(std::move(account_));
    suspended.resume();  // May destroy this object.
  }
  void await_resume() const noexcept {}

 private:
  std::shared_ptr<MemoryAccount> account_;
};

// An event that one coroutine may await, and that happens once.
//
// Thread-safe.
class Event {
 public:
  // Lets the coroutine go on, now or as soon as it awaits the event. Does
  // nothing if it has happened.
  void Happen() {
    std::optional<Continuation> waiting;
    {
      absl::MutexLock lock(&mutex_);
      happened_ = true;
      waiting.swap(waiting_);
    }
    if (waiting.has_value()) waiting->Resume();
  }

  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> suspended) {
    absl::MutexLock lock(&mutex_);
    if (!happened_) waiting_.emplace(suspended);
    return !happened_;
  }
  void await_resume() const noexcept {}

 private:
  absl::Mutex mutex_;
  bool happened_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<Continuation> waiting_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_CONTINUATION_H_
