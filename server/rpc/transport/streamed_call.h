// Reads and writes a call of a stream of calls.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_STREAMED_CALL_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_STREAMED_CALL_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/completion_queue.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/task.h"
#include "proto/wire/message.h"
#include "proto/wire/tensor_reader.h"
#include "proto/wire/tensor_writer.h"
#include "server/limits/continuation.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/call_order.h"
#include "server/rpc/transport/message_stream.h"
#include "server/rpc/transport/part_writer.h"
#include "server/rpc/transport/stall_watchdog.h"

namespace backboned::rpc {

// A request ends with the last byte that its header announces, and goes on to
// its work when its turn has come.
//
// The handler's functions are not thread-safe, all others are.
class StreamedCall final : public MessageStream,
                           public std::enable_shared_from_this<StreamedCall> {
 public:
  // The parts of a stream that its calls share; they must outlive the calls.
  struct Stream {
    grpc::CompletionQueue& queue;
    StallWatchdog& watchdog;
    CallOrder order = {};
    PartWriter writer;
    // Returns whether one call is under way.
    std::function<bool()> is_alone;
    // Returns why the stream's caller may not call any more; OK: it may.
    std::function<absl::Status()> refusal;
    // Takes the change of the bytes that came before a handler asked for them.
    std::function<void(int64_t)> buffered;
  };

  // Takes the last place in the stream's order. `header` is the first part,
  // `header_bytes` in all; `stop` stops `call`.
  StreamedCall(Stream& stream, Call call, std::stop_source stop,
               wire::Message header, int64_t header_bytes, CallOrder::Work work,
               uint64_t number, uint64_t after);
  ~StreamedCall() override;

  Call& call() { return call_; }
  uint64_t number() const { return place_.number; }

  // Takes a further part, of `bytes` in all.
  void Deliver(wire::Message part, int64_t bytes);

  // Tells that no further parts come.
  void EndParts();

  // Ends the call before its work begins.
  void Stop() { stop_.request_stop(); }

  Task<absl::Status> ReadRequest(
      google::protobuf::MessageLite& request) override;
  Task<absl::Status> ReadHeader(google::protobuf::MessageLite& header) override;
  Task<absl::Status> ReadTensors(
      std::vector<std::span<std::byte>> destinations) override;
  void GiveWay() override;
  Task<absl::Status> WriteResponse(
      const google::protobuf::MessageLite& response) override;
  using MessageStream::WriteTensors;
  Task<absl::Status> WriteTensors(const google::protobuf::MessageLite& header,
                                  std::vector<wire::Payload> tensors,
                                  LaterBytes* later) override;
  Task<bool> Finish(absl::Status status) override;

 private:
  void EndWork(bool succeeded);
  void StopSoon();
  void Place(const wire::Message& part) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishReading() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Task<absl::Status> AwaitTensors(wire::TensorReader& reader);
  Task<absl::Status> AwaitTurn();
  Task<bool> Write(grpc::ByteBuffer part, bool is_whole);

  Stream& stream_;
  Call call_;
  std::stop_source stop_;
  const uint32_t field_;
  CallOrder::Place place_;
  bool finished_ = false;  // The last part has been given to the writer.

  absl::Mutex mutex_;
  // Parts that came before the handler asked for them; first the header's.
  std::vector<wire::Message> early_ ABSL_GUARDED_BY(mutex_);
  int64_t early_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t bytes_in_ ABSL_GUARDED_BY(mutex_);
  bool parts_ended_ ABSL_GUARDED_BY(mutex_) = false;
  // While the handler awaits tensors.
  wire::TensorReader* reader_ ABSL_GUARDED_BY(mutex_) = nullptr;
  StallWatchdog::Transfer* transfer_ ABSL_GUARDED_BY(mutex_) = nullptr;
  absl::Status read_ ABSL_GUARDED_BY(mutex_);
  bool has_read_ ABSL_GUARDED_BY(mutex_) = false;
  Event arrived_;  // Happens when the tensors are complete, or cannot be.
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_STREAMED_CALL_H_
