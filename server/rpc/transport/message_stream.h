// Reads and writes headers and tensors through a stream of raw messages.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_MESSAGE_STREAM_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_MESSAGE_STREAM_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/task.h"
#include "proto/wire/message.h"
#include "proto/wire/tensor_writer.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/completion.h"
#include "server/rpc/transport/gate.h"
#include "server/rpc/transport/stall_watchdog.h"

namespace backboned::rpc {

// Reads a request and writes an answer. Each is a header and the bytes of
// tensors (see proto/backboned/v1/tensor.proto), or one plain message.
//
// Not thread-safe: belongs to the call's handler.
class MessageStream {
 public:
  // The arguments must outlive the stream.
  MessageStream(Rpc& rpc, Call& call, StallWatchdog& watchdog);

  // Keeps the call's place until its end begins: once a client has its answer,
  // the place is free.
  void KeepPlace(Gate::Pass place) { place_ = std::move(place); }

  // Reads the only message of a request.
  //
  // Gives kInvalidArgument unless there is exactly one, which can be decoded.
  Task<absl::Status> ReadRequest(google::protobuf::MessageLite& request);

  // Reads the first message of a streamed request and sets its header.
  //
  // Gives kInvalidArgument if there is none, it has no header, or it cannot be
  // decoded.
  Task<absl::Status> ReadHeader(google::protobuf::MessageLite& header);

  // Reads the rest of a streamed request into `destinations`, back to back,
  // until the client half-closes.
  //
  // Gives kInvalidArgument (the message names the byte) if the bytes are not
  // exactly those, kCancelled if the client went away or stalled; the content
  // of `destinations` is unspecified then.
  Task<absl::Status> ReadTensors(
      std::vector<std::span<std::byte>> destinations);

  // Ends the call if it still reads tensors, since a newer attempt of its
  // request has come. Thread-safe.
  void GiveWay();

  // Writes a plain message, the last one of the call.
  Task<absl::Status> WriteResponse(
      const google::protobuf::MessageLite& response);

  // Writes a header and the tensors' bytes, without copying large ones. Keeps
  // the tensors alive until gRPC has sent them.
  Task<absl::Status> WriteTensors(const google::protobuf::MessageLite& header,
                                  std::vector<wire::Payload> tensors);

  // Ends the call with `status`, unless its answer has ended it with OK.
  Task<bool> Finish(absl::Status status);

 private:
  Task<std::optional<grpc::ByteBuffer>> ReadMessage(
      StallWatchdog::Transfer& transfer);
  absl::Status EndOfTransfer(const StallWatchdog::Transfer& transfer) const;
  Task<absl::Status> SkipRest();
  Task<absl::Status> Write(const grpc::ByteBuffer& message, bool is_only,
                           StallWatchdog::Transfer& transfer);

  Rpc& rpc_;
  Call& call_;
  StallWatchdog& watchdog_;
  std::optional<Gate::Pass> place_;
  std::optional<wire::Message>
      first_;              // ReadHeader's; may hold the first chunk.
  bool ended_ = false;     // No messages follow.
  bool finished_ = false;  // The status has gone.
  std::atomic<bool> reads_tensors_ = false;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_MESSAGE_STREAM_H_
