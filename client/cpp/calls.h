// Makes many calls through one stream: sent bytes are not copied, received
// bytes once, straight to their place.

#ifndef BACKBONED_CLIENT_CPP_CALLS_H_
#define BACKBONED_CLIENT_CPP_CALLS_H_

#include <grpcpp/channel.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/spin.h"
#include "client/cpp/loan.h"
#include "client/cpp/options.h"
#include "proto/wire/message.h"
#include "proto/wire/tensor_writer.h"

namespace backboned::client {

// The stream of calls of a connection (docs/clients.md). It opens with the
// first call, and anew after its end: calls that were not answered are sent
// again then, in order, until they are older than the options' retry timeout.
// Give a change a request id, so that it is applied once.
//
// Has no thread. A caller who waits handles what comes, for everybody. The
// parts of a call behind its first one leave while somebody waits.
//
// Thread-safe. Must outlive its calls.
class Calls {
 public:
  // The request of a call. The tensors must live as long as the call.
  struct Request {
    uint32_t field = 0;  // CallsRequest's, of the header.
    std::string header;  // Encoded.
    std::vector<std::span<const std::byte>> tensors = {};
    absl::Duration timeout = absl::InfiniteDuration();
  };

  // A call. The destructor cancels it, unless it has ended, and ends the use of
  // the memory that was sent; it waits, past the deadline if necessary, for a
  // connection that is still writing the memory.
  //
  // Not thread-safe.
  class Call;

  // Calls under the options' session and label. `target`: the channel's, if it
  // is known.
  Calls(std::shared_ptr<grpc::Channel> channel, const Options& options,
        std::string target);
  ~Calls();
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;

  // Begins a call, which works only if `after` succeeded; null: in any case.
  std::unique_ptr<Call> Begin(Request request, const Call* after = nullptr);

  // Waits until the whole request has been written, or the call has ended, at
  // most until `until`; returns whether it has.
  bool Flush(Call& call, absl::Time until);

  // Waits for the call's result, and returns the message with it: ParseHeader
  // reads it. Returns the server's status if the call failed, kInternal if the
  // answer cannot be understood.
  absl::StatusOr<wire::Message> WaitForResult(Call& call);

  // Waits for the tensors behind the result, and for the call's end.
  absl::Status Receive(Call& call, wire::Message result,
                       std::vector<std::span<std::byte>> destinations);

  // Waits until the call has a further message, or has ended, at most until
  // `until`; returns whether it has.
  bool Wait(Call& call, absl::Time until);

  // Waits for the next message of an answer. Returns kOutOfRange behind the
  // last one, else as WaitForResult.
  absl::StatusOr<wire::Message> Next(Call& call);

  // Ends all calls with kCancelled, now and later.
  void Close();

 private:
  struct Stream;

  // gRPC's tags.
  enum class Event : uintptr_t { kStarted = 1, kRead, kWritten, kFinished };
  static void* Tag(Event event);

  bool IsWritten(const Call& call) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Open() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<grpc::ByteBuffer> NextPart()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t ChunkBytes() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  grpc::ByteBuffer FirstPart(Call& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Handle(Event event, bool ok) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellMoved(size_t bytes) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void TakePart(grpc::ByteBuffer part) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndStream() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(Call& call, absl::Status status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendAgain(Call& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(Call& call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayRepeat(const Call& call) const;
  void GiveUp(Call& call, absl::Status status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoticeEnd() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool LeadUntil(Call& call, absl::Time until, absl::Time deadline,
                 absl::FunctionRef<bool()> is_done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Lead(Call& call, absl::Time until) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Leave(Call& call);

  const std::shared_ptr<grpc::Channel> channel_;
  const Options options_;
  const std::string target_;
  grpc::CompletionQueue queue_;
  Spin spin_;  // Of the thread that leads.

  absl::Mutex mutex_;
  bool leads_ ABSL_GUARDED_BY(mutex_) = false;  // Somebody waits in the queue.
  bool is_closed_ ABSL_GUARDED_BY(mutex_) = false;  // There are no more calls.
  bool half_closes_ ABSL_GUARDED_BY(mutex_) = false;  // The stream is to end.
  std::list<Call*> waiting_ ABSL_GUARDED_BY(mutex_);  // Those who do not.
  std::unique_ptr<Stream> stream_ ABSL_GUARDED_BY(mutex_);
  int failures_ ABSL_GUARDED_BY(mutex_) =
      0;  // Streams in a row without a part.
  absl::Time reopens_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  // Calls that have not ended: those not sent yet in the order of their
  // beginning, the others by number in the stream.
  uint64_t last_place_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<uint64_t, Call*> unsent_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Call*> sent_ ABSL_GUARDED_BY(mutex_);
  // Calls with chunks to send, and numbers of calls to cancel.
  std::deque<Call*> sending_ ABSL_GUARDED_BY(mutex_);
  std::deque<uint64_t> cancelled_ ABSL_GUARDED_BY(mutex_);
};

class Calls::Call {
 public:
  Call(Calls& calls, Request request);
  ~Call() { calls_.Leave(*this); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  friend class Calls;

  // The state of a call, for those that follow it.
  struct Outcome {
    uint64_t number = 0;  // In the stream; 0: not sent in it.
    std::optional<bool> succeeded;
  };

  Calls& calls_;
  Loan loan_;  // Outlives the holders of slices.
  const Request request_;
  const absl::Time begun_;
  const absl::Time deadline_;
  // The following are guarded by calls_.mutex_.
  uint64_t place_ = 0;  // Among all calls.
  const std::shared_ptr<Outcome> outcome_ = std::make_shared<Outcome>();
  std::shared_ptr<const Outcome> after_;
  std::optional<wire::TensorWriter> writer_;  // Of what is not sent.
  std::deque<wire::Message> came_;
  bool has_taken_ = false;  // The caller has part of the answer.
  std::optional<absl::Status> ended_;
  absl::CondVar changed_;
};

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_CALLS_H_
