#include "client/cpp/call.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/wire/tensor_reader.h"
#include "proto/wire/tensor_writer.h"
#include "proto/wire/unary.h"

namespace backboned::client {
namespace {

absl::Status Malformed(const absl::Status& status) {
  return absl::InternalError(
      absl::StrCat("the answer is malformed: ", status.message()));
}

}  // namespace

Call::Call(const Connection& connection, const char* method,
           absl::Duration left) {
  connection.Prepare(context_, left);
  // Metadata, message and half-close leave together: the server wakes up once.
  context_.set_initial_metadata_corked(true);
  stream_.reset(
      grpc::internal::
          ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
              connection.channel().get(),
              grpc::internal::RpcMethod(
                  method, grpc::internal::RpcMethod::BIDI_STREAMING,
                  connection.channel()),
              &context_));
}

Call::~Call() {
  if (!finished_) Finish(absl::CancelledError()).IgnoreError();
}

void Call::SendMessage(const google::protobuf::MessageLite& request) {
  stream_->WriteLast(wire::Serialize(request), grpc::WriteOptions());
}

void Call::SendTensors(const google::protobuf::MessageLite& header,
                       const std::vector<std::span<const std::byte>>& tensors) {
  std::vector<wire::Payload> payloads;
  for (const auto bytes : tensors) {
    payloads.push_back({bytes, loan_.keep_alive()});
  }
  wire::TensorWriter writer(header, std::move(payloads));
  std::optional<grpc::ByteBuffer> message = writer.Next();
  while (message) {
    std::optional<grpc::ByteBuffer> next = writer.Next();
    grpc::WriteOptions options;
    if (!next) options.set_last_message();
    if (!stream_->Write(*message, options)) return;  // Finish() returns why.
    message = std::move(next);
  }
}

absl::Status Call::ReceiveMessage(google::protobuf::MessageLite& answer) {
  grpc::ByteBuffer buffer;
  absl::Status received;
  if (!Read(buffer)) {
    received = absl::InternalError("the answer is missing");
  } else if (absl::Status parsed = wire::Parse(buffer, answer); !parsed.ok()) {
    received = Malformed(parsed);
  } else if (Read(buffer)) {
    received = absl::InternalError("the answer has more than one message");
  }
  return Finish(std::move(received));
}

absl::Status Call::ReceiveTensors(Place place) {
  return Finish(ReadTensors(place));
}

bool Call::Read(grpc::ByteBuffer& buffer) {
  if (!ended_) ended_ = !stream_->Read(&buffer);
  return !ended_;
}

absl::StatusOr<wire::Message> Call::ReadMessage() {
  grpc::ByteBuffer buffer;
  if (!Read(buffer)) return absl::OutOfRangeError("the stream has ended");
  absl::StatusOr<wire::Message> message =
      wire::Message::Decode(std::move(buffer));
  if (!message.ok()) return Malformed(message.status());
  return message;
}

absl::Status Call::ReadTensors(Place place) {
  absl::StatusOr<wire::Message> message = ReadMessage();
  if (ended_) return absl::InternalError("the answer is missing");
  if (!message.ok()) return message.status();
  if (!message->has_header()) {
    return absl::InternalError("the answer has no header");
  }
  auto destinations = place(*message);
  if (!destinations.ok()) return destinations.status();
  wire::TensorReader reader(*std::move(destinations));
  while (message.ok()) {
    const absl::Status accepted = reader.Accept(*message);
    if (!accepted.ok()) return Malformed(accepted);
    message = ReadMessage();
    if (message.ok() && message->has_header()) {
      return absl::InternalError("the answer has two headers");
    }
  }
  if (!ended_) return message.status();
  const absl::Status complete = reader.Finish();
  return complete.ok() ? complete : Malformed(complete);
}

// Returns the server's status if it ended the call, else `received`.
absl::Status Call::Finish(absl::Status received) {
  finished_ = true;
  const bool ended_by_server = ended_;
  if (!ended_by_server) context_.TryCancel();
  grpc::ByteBuffer ignored;
  while (Read(ignored)) {
  }
  const grpc::Status status = stream_->Finish();
  if (ended_by_server && !status.ok()) return ToStatus(status);
  return received;
}

}  // namespace backboned::client
