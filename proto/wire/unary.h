// Whole messages as gRPC buffers, for calls that speak buffers in one direction
// and single messages in the other.

#ifndef BACKBONED_PROTO_WIRE_UNARY_H_
#define BACKBONED_PROTO_WIRE_UNARY_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"

namespace backboned::wire {

// Encodes `message`.
grpc::ByteBuffer Serialize(const google::protobuf::MessageLite& message);

// Replaces the content of `message` by what `buffer` encodes. A buffer that was
// never filled is an empty message.
//
// Returns kInvalidArgument if it is not a message of that type; `message` is
// then in an unspecified state.
absl::Status Parse(const grpc::ByteBuffer& buffer,
                   google::protobuf::MessageLite& message);

}  // namespace backboned::wire

#endif  // BACKBONED_PROTO_WIRE_UNARY_H_
