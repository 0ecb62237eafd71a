// Converts whole messages to and from gRPC buffers, for calls that use buffers
// in one direction and single messages in the other.

#ifndef BACKBONED_PROTO_WIRE_UNARY_H_
#define BACKBONED_PROTO_WIRE_UNARY_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"

namespace backboned::wire {

// Encodes `message`.
grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message);

// Replaces the content of `message` by the one that `buffer` encodes. A buffer
// that was never filled is an empty message.
//
// Returns kInvalidArgument if `buffer` is no message of that type; the content
// of `message` is unspecified then.
absl::Status Parse(const grpc::ByteBuffer& buffer,
                   google::protobuf::MessageLite& message);

}  // namespace backboned::wire

#endif  // BACKBONED_PROTO_WIRE_UNARY_H_
