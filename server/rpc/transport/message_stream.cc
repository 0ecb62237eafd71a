#include "server/rpc/transport/message_stream.h"

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "proto/wire/tensor_reader.h"
#include "proto/wire/unary.h"

namespace backboned::rpc {
namespace {

// A single message of at most this size travels with the call's status, which
// saves a wake-up of each side. gRPC sends it after the handler has returned,
// outside of all limits, so it must fit the window of a client that reads
// nothing: HTTP/2's smallest usual window is 64 KiB.
constexpr size_t kMaxBytesWithStatus = size_t{32} << 10;

absl::Status Malformed(std::string_view message) {
  return Error(absl::StatusCode::kInvalidArgument, Reason::kMalformedStream,
               message);
}

// Refuses a message without content: a stream of these could last for ever.
absl::Status NothingIn() {
  return Malformed("a message of the stream has neither header nor chunk");
}

}  // namespace

MessageStream::MessageStream(Stream& stream, Call& call,
                             StallWatchdog& watchdog)
    : stream_(stream), call_(call), watchdog_(watchdog) {}

std::optional<grpc::ByteBuffer> MessageStream::ReadMessage(
    StallWatchdog::Transfer& transfer) {
  grpc::ByteBuffer buffer;
  if (!ended_) ended_ = !stream_.Read(&buffer);
  if (ended_) return std::nullopt;
  const auto bytes = static_cast<int64_t>(buffer.Length());
  call_.record().bytes_in += bytes;
  transfer.Moved(bytes);
  return buffer;
}

// Returns why no message was read or written; OK: the client half-closed.
absl::Status MessageStream::EndOfTransfer(
    const StallWatchdog::Transfer& transfer) const {
  if (transfer.stalled()) {
    return Error(absl::StatusCode::kCancelled, Reason::kClientStalled,
                 absl::StrCat("the transfer moved less than ",
                              StallWatchdog::kProgressBytes >> 10,
                              " KiB within stall-timeout, or lasted ",
                              StallWatchdog::kMostTimeouts, " times as long"));
  }
  if (call_.IsCancelled()) return absl::CancelledError("the client went away");
  return absl::OkStatus();
}

// Skips the client's remaining messages, for a retry of an answered request: a
// client may read nothing before it has written everything.
absl::Status MessageStream::SkipRest() {
  if (ended_) return absl::OkStatus();
  StallWatchdog::Transfer transfer(watchdog_, [this] { call_.Cancel(); });
  while (std::optional<grpc::ByteBuffer> buffer = ReadMessage(transfer)) {
    if (buffer->Length() == 0) return NothingIn();
  }
  return EndOfTransfer(transfer);
}

absl::Status MessageStream::ReadRequest(
    google::protobuf::MessageLite& request) {
  StallWatchdog::Transfer transfer(watchdog_, [this] { call_.Cancel(); });
  std::optional<grpc::ByteBuffer> buffer = ReadMessage(transfer);
  if (!buffer.has_value()) {
    absl::Status end = EndOfTransfer(transfer);
    return end.ok() ? Malformed("the request has no message") : end;
  }
  absl::Status parsed = wire::Parse(*buffer, request);
  if (!parsed.ok()) return parsed;
  if (ReadMessage(transfer).has_value()) {
    return Malformed("the request has more than one message");
  }
  return EndOfTransfer(transfer);
}

absl::Status MessageStream::ReadHeader(google::protobuf::MessageLite& header) {
  StallWatchdog::Transfer transfer(watchdog_, [this] { call_.Cancel(); });
  std::optional<grpc::ByteBuffer> buffer = ReadMessage(transfer);
  if (!buffer.has_value()) {
    absl::Status end = EndOfTransfer(transfer);
    return end.ok() ? Malformed("the stream ended before its header") : end;
  }
  absl::StatusOr<wire::Message> message =
      wire::Message::Decode(std::move(*buffer));
  if (!message.ok()) return message.status();
  if (!message->has_header()) {
    return Malformed("the first message of the stream has no header");
  }
  absl::Status parsed = message->ParseHeader(header);
  if (!parsed.ok()) return parsed;
  first_ = *std::move(message);
  return absl::OkStatus();
}

absl::Status MessageStream::ReadTensors(
    std::vector<std::span<std::byte>> destinations) {
  StallWatchdog::Transfer transfer(watchdog_, [this] { call_.Cancel(); });
  reads_tensors_ = true;
  const absl::Cleanup read = [this] { reads_tensors_ = false; };
  wire::TensorReader reader(std::move(destinations));
  absl::Status status = reader.Accept(*first_);
  first_.reset();  // Its buffer is not needed while the others come.
  while (status.ok()) {
    std::optional<grpc::ByteBuffer> buffer = ReadMessage(transfer);
    if (!buffer.has_value()) {
      status = EndOfTransfer(transfer);
      return status.ok() ? reader.Finish() : status;
    }
    absl::StatusOr<wire::Message> message =
        wire::Message::Decode(std::move(*buffer));
    if (!message.ok()) return message.status();
    if (message->has_header()) {
      return Malformed("the stream has a second header");
    }
    if (!message->has_chunk()) return NothingIn();
    status = reader.Accept(*message);
  }
  return status;
}

void MessageStream::GiveWay() {
  if (reads_tensors_) call_.Cancel();
}

// Returns once the message has left, unless it travels with the status.
absl::Status MessageStream::Write(const grpc::ByteBuffer& message, bool is_only,
                                  StallWatchdog::Transfer& transfer) {
  grpc::WriteOptions options;
  if (is_only && message.Length() <= kMaxBytesWithStatus) {
    options.set_last_message();
  }
  if (!stream_.Write(message, options)) {
    absl::Status end = EndOfTransfer(transfer);
    return end.ok() ? absl::CancelledError("the client went away") : end;
  }
  const auto bytes = static_cast<int64_t>(message.Length());
  call_.record().bytes_out += bytes;
  transfer.Moved(bytes);
  return absl::OkStatus();
}

absl::Status MessageStream::WriteResponse(
    const google::protobuf::MessageLite& response) {
  absl::Status skipped = SkipRest();
  if (!skipped.ok()) return skipped;
  StallWatchdog::Transfer transfer(watchdog_, [this] { call_.Cancel(); });
  return Write(wire::Serialize(response), /*is_only=*/true, transfer);
}

absl::Status MessageStream::WriteTensors(
    const google::protobuf::MessageLite& header,
    std::vector<wire::Payload> tensors) {
  absl::Status status = SkipRest();
  if (!status.ok()) return status;
  StallWatchdog::Transfer transfer(watchdog_, [this] { call_.Cancel(); });
  wire::TensorWriter writer(header, std::move(tensors));
  const grpc::ByteBuffer first = *writer.Next();  // There always is one.
  std::optional<grpc::ByteBuffer> next = writer.Next();
  status = Write(first, /*is_only=*/!next.has_value(), transfer);
  for (; status.ok() && next.has_value(); next = writer.Next()) {
    status = Write(*next, /*is_only=*/false, transfer);
  }
  return status;
}

}  // namespace backboned::rpc
