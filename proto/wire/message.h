// Decodes a message of a stream where it lies.
//
// Every streaming message of backboned.v1 is
//
//   message Any { Header header = 1; Chunk chunk = 2; }
//   message Chunk { int64 offset = 1; bytes data = 2; }
//
// and may also be read and written by generated code. This decoder accepts and
// refuses the same bytes as generated code, but leaves the chunk's data in the
// slices that gRPC received. docs/wire.md has an example in bytes.
//
// A part of a stream of calls (CallsRequest, CallsResponse) has its chunk in
// field 2 too, and in place of one header a oneof of several.

#ifndef BACKBONED_PROTO_WIRE_MESSAGE_H_
#define BACKBONED_PROTO_WIRE_MESSAGE_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace backboned::wire {

class Cursor;

// The default number of data bytes in a chunk that a writer sends.
inline constexpr int64_t kChunkBytes = int64_t{1} << 20;

// The same in a part of a stream of calls, while other calls may wait for its
// end.
inline constexpr int64_t kPartChunkBytes = int64_t{256} << 10;

// The most data bytes in a chunk that a reader accepts.
inline constexpr int64_t kMaxChunkBytes = int64_t{2} << 20;

// The header's field in a message, and the first field of a part's oneof.
inline constexpr uint32_t kHeaderField = 1;
inline constexpr uint32_t kFirstOneofField = 10;

// A decoded message. Holds the slices of its buffer, and with them the memory
// of chunk_parts().
//
// Immutable after Decode, hence safe to read from several threads.
class Message {
 public:
  // Decodes `buffer`. A buffer that was never filled is an empty message.
  //
  // Returns kInvalidArgument, which names the byte where decoding stopped, or,
  // for a chunk above kMaxChunkBytes, its bytes and the limit.
  static absl::StatusOr<Message> Decode(grpc::ByteBuffer buffer);

  // Decodes a part of a stream of calls in the same way. Its header is each
  // field from kFirstOneofField on; of several, the last one.
  static absl::StatusOr<Message> DecodePart(grpc::ByteBuffer buffer);

  Message(Message&&) = default;
  Message& operator=(Message&&) = default;
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  // Returns whether there is a header.
  bool has_header() const { return !headers_.empty(); }

  // The header's field. 0: there is none.
  uint32_t header_field() const { return headers_.empty() ? 0 : header_field_; }

  // Returns the header, encoded; empty if there is none.
  std::string header_bytes() const;

  // Replaces the content of `header` by the header's, its occurrences merged as
  // generated code does; clears it if there is none.
  //
  // Returns kInvalidArgument if the field is no message of that type; the
  // content of `header` is unspecified then.
  absl::Status ParseHeader(google::protobuf::MessageLite& header) const;

  // Replaces the content of `rest` by a part's fields other than header and
  // chunk. Returns kInvalidArgument if they cannot be decoded.
  absl::Status ParseRest(google::protobuf::MessageLite& rest) const;

  // Returns whether field 2 occurs.
  bool has_chunk() const { return has_chunk_; }

  // The chunk's offset as sent, which may be any number. 0 without a chunk.
  int64_t chunk_offset() const { return chunk_offset_; }

  // The number of bytes of the chunk's data. 0 without a chunk.
  int64_t chunk_bytes() const { return chunk_bytes_; }

  // The chunk's data in order, without empty parts. Valid while this message,
  // or the one that it is moved to, lives.
  std::span<const std::span<const std::byte>> chunk_parts() const {
    return chunk_parts_;
  }

 private:
  // An occurrence of the header's field.
  struct Header {
    int64_t position;  // Its first byte in the message.
    std::string bytes;
  };

  explicit Message(bool is_part) : is_part_(is_part) {}

  static absl::StatusOr<Message> Decode(grpc::ByteBuffer buffer, bool is_part);
  bool DecodeFields(Cursor& cursor);
  bool IsHeader(uint32_t field) const;
  bool DecodeHeader(Cursor& cursor, uint32_t field);
  bool DecodeChunk(Cursor& cursor);
  bool DecodeChunkFields(Cursor& cursor);

  std::vector<grpc::Slice>
      slices_;  // Never resized: short ones hold their bytes.
  bool is_part_;
  uint32_t header_field_ = 0;
  std::vector<Header> headers_;
  std::string rest_;  // A part's other fields, as encoded.
  bool has_chunk_ = false;
  int64_t chunk_offset_ = 0;
  int64_t chunk_bytes_ = 0;
  std::vector<std::span<const std::byte>> chunk_parts_;
};

}  // namespace backboned::wire

#endif  // BACKBONED_PROTO_WIRE_MESSAGE_H_
