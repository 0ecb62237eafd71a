// Coroutines: straight-line code that gives its thread back while it waits.

#ifndef BACKBONED_BASE_TASK_H_
#define BACKBONED_BASE_TASK_H_

#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

#include "absl/synchronization/notification.h"

namespace backboned {

// The result, a T, of a coroutine that begins when it is awaited. Its awaiter
// goes on where it ended, on that thread. An exception reaches the awaiter.
//
// A coroutine's parameters may refer to what lives where it is awaited. Not
// thread-safe.
template <typename T>
class [[nodiscard]] Task {
 public:
  struct promise_type;

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(
      std::coroutine_handle<> awaiter) noexcept {
    handle_.promise().awaiter = awaiter;
    return handle_;
  }
  T await_resume() {
    if (handle_.promise().error) {
      std::rethrow_exception(handle_.promise().error);
    }
    return *std::move(handle_.promise().result);
  }

 private:
  using Handle = std::coroutine_handle<promise_type>;

  explicit Task(Handle handle) : handle_(handle) {}

  Handle handle_;
};

template <typename T>
struct Task<T>::promise_type {
  // Lets the awaiter go on.
  struct Ended {
    bool await_ready() noexcept { return false; }
    std::coroutine_handle<> await_suspend(Handle ended) noexcept {
      return ended.promise().awaiter;
    }
    void await_resume() noexcept {}
  };

  Task get_return_object() { return Task(Handle::from_promise(*this)); }
  std::suspend_always initial_suspend() noexcept { return {}; }
  Ended final_suspend() noexcept { return {}; }
  template <typename Value>
  void return_value(Value&& value) {
    result.emplace(std::forward<Value>(value));
  }
  void unhandled_exception() { error = std::current_exception(); }

  std::optional<T> result;
  std::exception_ptr error;
  std::coroutine_handle<> awaiter;
};

// A coroutine that nobody awaits. It begins at once, and must not throw.
struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

// Awaits `awaitable` while this thread sleeps, and returns its result. For
// programs and tests: code that a coroutine calls must not block.
template <typename Awaitable>
auto BlockOn(Awaitable awaitable) {
  std::optional<decltype(awaitable.await_resume())> result;
  std::exception_ptr error;
  absl::Notification ended;
  const auto await = [&]() -> Detached {
    Awaitable& awaited = awaitable;  // GCC 12 would copy the capture.
    try {
      result.emplace(co_await awaited);
    } catch (...) {
      error = std::current_exception();
    }
    ended.Notify();
  };
  await();
  ended.WaitForNotification();
  if (error) std::rethrow_exception(error);
  return *std::move(result);
}

}  // namespace backboned

#endif  // BACKBONED_BASE_TASK_H_
