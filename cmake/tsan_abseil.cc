// Shows Debian's Abseil to the thread sanitizer.
//
// The packaged library is not instrumented: the sanitizer would miss every
// order that an absl::Mutex makes and report races that are none. Linked into a
// program, these definitions take the place of the library's; each calls the
// library's and tells the sanitizer what it ordered. Readers count as ordered
// among themselves, which can hide a race but never invents one.

#include <absl/synchronization/blocking_counter.h>
#include <absl/synchronization/mutex.h>
#include <absl/synchronization/notification.h>
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

#include <cstdio>
#include <cstdlib>

namespace {

template <typename Function>
Function* Find(const char* symbol) {
  void* function = dlsym(RTLD_NEXT, symbol);
  if (function == nullptr) {
    std::fprintf(stderr, "cmake/tsan: Abseil has no %s\n", symbol);
    std::abort();
  }
  return reinterpret_cast<Function*>(function);
}

// A condition of `mutex`, which the library may evaluate on any thread.
struct Ordered {
  static bool Eval(Ordered* ordered) {
    __tsan_acquire(ordered->mutex);
    const bool holds = ordered->condition.Eval();
    __tsan_release(ordered->mutex);
    return holds;
  }

  absl::Mutex* mutex;
  const absl::Condition& condition;
};

}  // namespace

// The library's function that the calling one stands for.
#define LIBRARY(type, symbol) static auto* const library = Find<type>(symbol)

#define LOCK(method, symbol)       \
  void Mutex::method() {           \
    LIBRARY(void(Mutex*), symbol); \
    library(this);                 \
    __tsan_acquire(this);          \
  }

#define TRY_LOCK(method, symbol)       \
  bool Mutex::method() {               \
    LIBRARY(bool(Mutex*), symbol);     \
    const bool locked = library(this); \
    if (locked) __tsan_acquire(this);  \
    return locked;                     \
  }

#define UNLOCK(method, symbol)     \
  void Mutex::method() {           \
    LIBRARY(void(Mutex*), symbol); \
    __tsan_release(this);          \
    library(this);                 \
  }

// Methods that wait for a condition: Await releases the lock, LockWhen has
// none.
#define WAIT(method, symbol)                            \
  void Mutex::method(const Condition& condition) {      \
    LIBRARY(void(Mutex*, const Condition&), symbol);    \
    Ordered ordered{this, condition};                   \
    __tsan_release(this);                               \
    library(this, Condition(&Ordered::Eval, &ordered)); \
    __tsan_acquire(this);                               \
  }

#define WAIT_UNTIL(method, Limit, symbol)                          \
  bool Mutex::method(const Condition& condition, Limit limit) {    \
    LIBRARY(bool(Mutex*, const Condition&, Limit), symbol);        \
    Ordered ordered{this, condition};                              \
    __tsan_release(this);                                          \
    const bool holds =                                             \
        library(this, Condition(&Ordered::Eval, &ordered), limit); \
    __tsan_acquire(this);                                          \
    return holds;                                                  \
  }

#define MUTEX "_ZN4absl7debian35Mutex"
#define CONDITION "ERKNS0_9ConditionE"
#define UNTIL "ERKNS0_9ConditionENS0_4TimeE"
#define FOR "ERKNS0_9ConditionENS0_8DurationE"

namespace absl {
ABSL_NAMESPACE_BEGIN

LOCK(Lock, MUTEX "4LockEv")
LOCK(ReaderLock, MUTEX "10ReaderLockEv")
TRY_LOCK(TryLock, MUTEX "7TryLockEv")
TRY_LOCK(ReaderTryLock, MUTEX "13ReaderTryLockEv")
UNLOCK(Unlock, MUTEX "6UnlockEv")
UNLOCK(ReaderUnlock, MUTEX "12ReaderUnlockEv")
WAIT(Await, MUTEX "5Await" CONDITION)
WAIT(LockWhen, MUTEX "8LockWhen" CONDITION)
WAIT(ReaderLockWhen, MUTEX "14ReaderLockWhen" CONDITION)
WAIT_UNTIL(AwaitWithDeadline, Time, MUTEX "17AwaitWithDeadline" UNTIL)
WAIT_UNTIL(AwaitWithTimeout, Duration, MUTEX "16AwaitWithTimeout" FOR)
WAIT_UNTIL(LockWhenWithDeadline, Time, MUTEX "20LockWhenWithDeadline" UNTIL)
WAIT_UNTIL(LockWhenWithTimeout, Duration, MUTEX "19LockWhenWithTimeout" FOR)
WAIT_UNTIL(ReaderLockWhenWithDeadline, Time,
           MUTEX "26ReaderLockWhenWithDeadline" UNTIL)
WAIT_UNTIL(ReaderLockWhenWithTimeout, Duration,
           MUTEX "25ReaderLockWhenWithTimeout" FOR)

#define COND_VAR "_ZN4absl7debian37CondVar"

void CondVar::Wait(Mutex* mutex) {
  LIBRARY(void(CondVar*, Mutex*), COND_VAR "4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  library(this, mutex);
  __tsan_acquire(mutex);
}

bool CondVar::WaitWithDeadline(Mutex* mutex, Time limit) {
  LIBRARY(bool(CondVar*, Mutex*, Time),
          COND_VAR "16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");
  __tsan_release(mutex);
  const bool expired = library(this, mutex, limit);
  __tsan_acquire(mutex);
  return expired;
}

bool CondVar::WaitWithTimeout(Mutex* mutex, Duration limit) {
  LIBRARY(bool(CondVar*, Mutex*, Duration),
          COND_VAR "15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
  __tsan_release(mutex);
  const bool expired = library(this, mutex, limit);
  __tsan_acquire(mutex);
  return expired;
}

#define NOTIFICATION "4absl7debian312Notification"

// HasBeenNotified is inline: an acquiring read that the sanitizer sees.
void Notification::Notify() {
  LIBRARY(void(Notification*), "_ZN" NOTIFICATION "6NotifyEv");
  __tsan_release(&notified_yet_);
  library(this);
}

void Notification::WaitForNotification() const {
  LIBRARY(void(const Notification*),
          "_ZNK" NOTIFICATION "19WaitForNotificationEv");
  library(this);
  static_cast<void>(HasBeenNotified());
}

bool Notification::WaitForNotificationWithTimeout(Duration limit) const {
  LIBRARY(bool(const Notification*, Duration),
          "_ZNK" NOTIFICATION
          "30WaitForNotificationWithTimeoutENS0_8DurationE");
  const bool notified = library(this, limit);
  static_cast<void>(HasBeenNotified());
  return notified;
}

bool Notification::WaitForNotificationWithDeadline(Time limit) const {
  LIBRARY(bool(const Notification*, Time),
          "_ZNK" NOTIFICATION "31WaitForNotificationWithDeadlineENS0_4TimeE");
  const bool notified = library(this, limit);
  static_cast<void>(HasBeenNotified());
  return notified;
}

#define BLOCKING_COUNTER "_ZN4absl7debian315BlockingCounter"

bool BlockingCounter::DecrementCount() {
  LIBRARY(bool(BlockingCounter*), BLOCKING_COUNTER "14DecrementCountEv");
  __tsan_release(this);
  return library(this);
}

void BlockingCounter::Wait() {
  LIBRARY(void(BlockingCounter*), BLOCKING_COUNTER "4WaitEv");
  library(this);
  __tsan_acquire(this);
}

ABSL_NAMESPACE_END
}  // namespace absl
