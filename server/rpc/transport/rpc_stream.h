// Reads and writes a call that is an RPC of its own.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_RPC_STREAM_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_RPC_STREAM_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/task.h"
#include "proto/wire/message.h"
#include "proto/wire/tensor_writer.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/completion.h"
#include "server/rpc/transport/message_stream.h"
#include "server/rpc/transport/stall_watchdog.h"

namespace backboned::rpc {

// The messages of an RPC: a request ends where the client half-closes.
class RpcStream final : public MessageStream {
 public:
  // The arguments must outlive the stream.
  RpcStream(Rpc& rpc, Call& call, StallWatchdog& watchdog);

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
  void Cancel() { rpc_.context.TryCancel(); }
  Task<std::optional<grpc::ByteBuffer>> ReadMessage(
      StallWatchdog::Transfer& transfer);
  absl::Status EndOfTransfer(const StallWatchdog::Transfer& transfer) const;
  Task<absl::Status> SkipRest();
  Task<absl::Status> Write(const grpc::ByteBuffer& message, bool is_only,
                           StallWatchdog::Transfer& transfer);
  void AddTrailers();

  Rpc& rpc_;
  Call& call_;
  StallWatchdog& watchdog_;
  std::optional<wire::Message>
      first_;              // ReadHeader's; may hold the first chunk.
  bool ended_ = false;     // No messages follow.
  bool finished_ = false;  // The status has gone.
  std::atomic<bool> reads_tensors_ = false;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_RPC_STREAM_H_
