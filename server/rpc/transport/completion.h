// Lets coroutines await gRPC's operations.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_COMPLETION_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_COMPLETION_H_

#include <grpcpp/completion_queue.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/async_stream.h>
#include <grpcpp/support/byte_buffer.h>

#include <coroutine>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>

#include "server/limits/continuation.h"

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace backboned::rpc {

// Tell the thread sanitizer that who takes `tag` off a queue comes behind who
// gave it to gRPC, which it cannot see.
inline void GiveTag([[maybe_unused]] void* tag) {
#ifdef __SANITIZE_THREAD__
  __tsan_release(tag);
#endif
}
inline void TakeTag([[maybe_unused]] void* tag) {
#ifdef __SANITIZE_THREAD__
  __tsan_acquire(tag);
#endif
}

// The tag of an operation in a completion queue.
class Completion {
 public:
  // The operation has ended.
  virtual void Complete(bool ok) = 0;

 protected:
  ~Completion() = default;
};

// Starts an operation of gRPC's when it is awaited, and gives whether that
// succeeded. `Start` takes the operation's tag.
template <typename Start>
class Operation final : public Completion {
 public:
  explicit Operation(Start start) : start_(std::move(start)) {}

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> suspended) {
    waiting_.emplace(suspended);
    void* const tag = static_cast<Completion*>(this);
    GiveTag(tag);
    start_(tag);
  }
  bool await_resume() const noexcept { return ok_; }

  void Complete(bool ok) override {
    ok_ = ok;
    waiting_->Resume();
  }

 private:
  Start start_;
  std::optional<Continuation> waiting_;
  bool ok_ = false;
};

// Runs `run` where the queue's completions are handled, soon. For threads that
// must not do so themselves.
void Post(grpc::CompletionQueue& queue, std::function<void()> run);

// An RPC, from the wait for it until its end.
struct Rpc {
  explicit Rpc(grpc::ServerCompletionQueue& its_queue)
      : queue(its_queue), stream(&context), on_end(*this) {
    context.AsyncNotifyWhenDone(static_cast<Completion*>(&on_end));
  }

  grpc::ServerCompletionQueue& queue;
  grpc::ServerContext context;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> stream;
  // Stopped if the RPC ends without its status: cancelled, or cut off.
  std::stop_source gone;
  // Happens at the RPC's end, whoever ended it, if it has begun.
  Event ended;

  // gRPC's tag for that.
  struct End final : Completion {
    explicit End(Rpc& its) : rpc(its) {}
    void Complete(bool) override {
      if (rpc.context.IsCancelled()) rpc.gone.request_stop();
      rpc.ended.Happen();
    }
    Rpc& rpc;
  };
  End on_end;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_COMPLETION_H_
