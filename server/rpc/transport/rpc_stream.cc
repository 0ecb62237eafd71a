#include "server/rpc/transport/rpc_stream.h"

#include <grpc/grpc.h>

#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "proto/wire/tensor_reader.h"
#include "proto/wire/unary.h"
#include "server/rpc/transport/status.h"

namespace backboned::rpc {
namespace {

// A single message of at most this size travels with the call's status, which
// saves a wake-up of each side. The call has given up its place then, so the
// message must fit the window of a client that reads nothing: HTTP/2's smallest
// usual window is 64 KiB.
constexpr size_t kMaxBytesWithStatus = size_t{32} << 10;

// Refuses a message without content: a stream of these could last for ever.
absl::Status NothingIn() {
  return Malformed("a message of the stream has neither header nor chunk");
}

}  // namespace

RpcStream::RpcStream(Rpc& rpc, Call& call, StallWatchdog& watchdog)
    : rpc_(rpc), call_(call), watchdog_(watchdog) {}

Task<std::optional<grpc::ByteBuffer>> RpcStream::ReadMessage(
    StallWatchdog::Transfer& transfer) {
  grpc::ByteBuffer buffer;
  if (!ended_) {
    ended_ =
        !co_await Operation([&](void* tag) { rpc_.stream.Read(&buffer, tag); });
  }
  if (ended_) {
    // gRPC tells here already whether the client half-closed or went away.
    if (grpc_call_failed_before_recv_message(rpc_.context.c_call()) != 0) {
      rpc_.gone.request_stop();
    }
    co_return std::nullopt;
  }
  const auto bytes = static_cast<int64_t>(buffer.Length());
  call_.record().bytes_in += bytes;
  transfer.Moved(bytes);
  co_return buffer;
}

// Returns why no message was read or written; OK: the client half-closed.
absl::Status RpcStream::EndOfTransfer(
    const StallWatchdog::Transfer& transfer) const {
  if (transfer.stalled()) return Stalled();
  if (call_.IsCancelled()) return absl::CancelledError("the client went away");
  return absl::OkStatus();
}

// Skips the client's remaining messages, for a retry of an answered request: a
// client may read nothing before it has written everything.
Task<absl::Status> RpcStream::SkipRest() {
  if (ended_) co_return absl::OkStatus();
  StallWatchdog::Transfer transfer(watchdog_, [this] { Cancel(); });
  while (std::optional<grpc::ByteBuffer> buffer =
             co_await ReadMessage(transfer)) {
    if (buffer->Length() == 0) co_return NothingIn();
  }
  co_return EndOfTransfer(transfer);
}

Task<absl::Status> RpcStream::ReadRequest(
    google::protobuf::MessageLite& request) {
  StallWatchdog::Transfer transfer(watchdog_, [this] { Cancel(); });
  const std::optional<grpc::ByteBuffer> buffer = co_await ReadMessage(transfer);
  if (!buffer.has_value()) {
    absl::Status end = EndOfTransfer(transfer);
    co_return end.ok() ? Malformed("the request has no message") : end;
  }
  absl::Status parsed = wire::Parse(*buffer, request);
  if (!parsed.ok()) co_return parsed;
  const std::optional<grpc::ByteBuffer> more = co_await ReadMessage(transfer);
  if (more.has_value()) {
    co_return Malformed("the request has more than one message");
  }
  co_return EndOfTransfer(transfer);
}

Task<absl::Status> RpcStream::ReadHeader(
    google::protobuf::MessageLite& header) {
  StallWatchdog::Transfer transfer(watchdog_, [this] { Cancel(); });
  std::optional<grpc::ByteBuffer> buffer = co_await ReadMessage(transfer);
  if (!buffer.has_value()) {
    absl::Status end = EndOfTransfer(transfer);
    co_return end.ok() ? Malformed("the stream ended before its header") : end;
  }
  absl::StatusOr<wire::Message> message =
      wire::Message::Decode(*std::move(buffer));
  if (!message.ok()) co_return message.status();
  if (!message->has_header()) {
    co_return Malformed("the first message of the stream has no header");
  }
  absl::Status parsed = message->ParseHeader(header);
  if (!parsed.ok()) co_return parsed;
  first_ = *std::move(message);
  co_return absl::OkStatus();
}

Task<absl::Status> RpcStream::ReadTensors(
    std::vector<std::span<std::byte>> destinations) {
  StallWatchdog::Transfer transfer(watchdog_, [this] { Cancel(); });
  reads_tensors_ = true;
  const absl::Cleanup read = [this] { reads_tensors_ = false; };
  wire::TensorReader reader(std::move(destinations));
  absl::Status status = reader.Accept(*first_);
  first_.reset();  // Its buffer is not needed while the others come.
  while (status.ok()) {
    std::optional<grpc::ByteBuffer> buffer = co_await ReadMessage(transfer);
    if (!buffer.has_value()) {
      status = EndOfTransfer(transfer);
      co_return status.ok() ? reader.Finish() : status;
    }
    absl::StatusOr<wire::Message> message =
        wire::Message::Decode(*std::move(buffer));
    if (!message.ok()) co_return message.status();
    if (message->has_header()) {
      co_return Malformed("the stream has a second header");
    }
    if (!message->has_chunk()) co_return NothingIn();
    status = reader.Accept(*message);
  }
  co_return status;
}

void RpcStream::GiveWay() {
  if (reads_tensors_) Cancel();
}

// Tells how long the call took, as W3C's Server Timing writes it, and the id
// by which the log knows it. Call this before the status goes.
void RpcStream::AddTrailers() {
  const Call::Record& record = call_.record();
  const std::string timing =
      absl::StrFormat("queue;dur=%.3f, compute;dur=%.3f, total;dur=%.3f",
                      absl::ToDoubleMilliseconds(record.times.queue),
                      absl::ToDoubleMilliseconds(record.times.compute),
                      absl::ToDoubleMilliseconds(call_.Elapsed()));
  rpc_.context.AddTrailingMetadata("server-timing", timing);
  if (record.request_id.empty()) return;
  rpc_.context.AddTrailingMetadata("backboned-request-id", record.request_id);
}

// Gives its status once the message has left.
Task<absl::Status> RpcStream::Write(const grpc::ByteBuffer& message,
                                    bool is_only,
                                    StallWatchdog::Transfer& transfer) {
  const auto bytes = static_cast<int64_t>(message.Length());
  finished_ = is_only && message.Length() <= kMaxBytesWithStatus;
  if (finished_) {
    LeavePlace();
    AddTrailers();
  }
  const bool written = co_await Operation([&](void* tag) {
    if (finished_) {
      rpc_.stream.WriteAndFinish(message, {}, grpc::Status::OK, tag);
    } else {
      rpc_.stream.Write(message, tag);
    }
  });
  if (!written) {
    absl::Status end = EndOfTransfer(transfer);
    co_return end.ok() ? absl::CancelledError("the client went away") : end;
  }
  call_.record().bytes_out += bytes;
  transfer.Moved(bytes);
  co_return absl::OkStatus();
}

Task<absl::Status> RpcStream::WriteResponse(
    const google::protobuf::MessageLite& response) {
  absl::Status skipped = co_await SkipRest();
  if (!skipped.ok()) co_return skipped;
  StallWatchdog::Transfer transfer(watchdog_, [this] { Cancel(); });
  const grpc::ByteBuffer message = wire::Serialize(response);
  co_return co_await Write(message, /*is_only=*/true, transfer);
}

Task<absl::Status> RpcStream::WriteTensors(
    const google::protobuf::MessageLite& header,
    std::vector<wire::Payload> tensors, LaterBytes* later) {
  absl::Status status = co_await SkipRest();
  if (!status.ok()) co_return status;
  wire::TensorWriter writer(header, std::move(tensors), wire::kChunkBytes, {},
                            later == nullptr ? 0 : later->bytes());
  std::optional<StallWatchdog::Transfer> transfer;
  for (bool is_first = true;; is_first = false) {
    if (writer.lacks_bytes()) {
      transfer.reset();  // The client does not stall meanwhile.
      status = co_await Complete(writer, later);
    }
    if (!status.ok()) co_return status;
    const std::optional<grpc::ByteBuffer> message = writer.Next();
    if (!message.has_value()) co_return absl::OkStatus();
    if (!transfer.has_value())
      transfer.emplace(watchdog_, [this] { Cancel(); });
    const bool is_only = is_first && writer.is_done();
    status = co_await Write(*message, is_only, *transfer);
    if (!status.ok()) co_return status;
  }
}

Task<bool> RpcStream::Finish(absl::Status status) {
  if (finished_) co_return true;
  finished_ = true;
  LeavePlace();
  AddTrailers();
  co_return co_await Operation(
      [&](void* tag) { rpc_.stream.Finish(ToGrpc(status), tag); });
}

}  // namespace backboned::rpc
