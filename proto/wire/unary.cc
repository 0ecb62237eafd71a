#include "proto/wire/unary.h"

#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <string>

namespace backboned::wire {

grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message) {
  grpc::Slice slice(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

absl::Status Parse(const grpc::ByteBuffer& buffer,
                   google::protobuf::MessageLite& message) {
  message.Clear();
  if (!buffer.Valid()) return absl::OkStatus();
  grpc::ByteBuffer copy =
      buffer;  // Shares the slices; the reader wants to write.
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok() || !message.ParseFromZeroCopyStream(&reader)) {
    return absl::InvalidArgumentError("cannot decode the message");
  }
  return absl::OkStatus();
}

}  // namespace backboned::wire
