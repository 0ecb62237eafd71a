// Sends a stream of tensors.

#ifndef BACKBONED_PROTO_WIRE_TENSOR_WRITER_H_
#define BACKBONED_PROTO_WIRE_TENSOR_WRITER_H_

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "proto/wire/message.h"

namespace backboned::wire {

// A part of a tensor of at least this size travels in its own memory; a smaller
// one is copied behind the encoded fields.
inline constexpr int64_t kMinSharedBytes = int64_t{16} << 10;

// Bytes to send, and an object that keeps them in place and unchanged until
// they are sent.
struct Payload {
  std::span<const std::byte> bytes;
  // Shared by every slice around `bytes`, and released by the thread that drops
  // the last one. Null: the caller keeps `bytes` alive longer than all
  // messages.
  std::shared_ptr<const void> keep_alive = nullptr;
};

// The fields of each message besides header and chunk, and the header's number.
struct Frame {
  uint32_t header_field = kHeaderField;
  std::string each = {};   // Encoded fields of each message,
  std::string first = {};  // and further ones of the first
  std::string last = {};   // and of the last one.
};

// Returns the frame of a part of the call `call` of a stream of calls.
Frame PartOf(uint64_t call, uint32_t header_field);

// Cuts tensors into the messages of a stream: the header with the first chunk,
// then the other chunks. Without a frame the messages equal those of generated
// code, byte by byte.
//
// Not thread-safe; one writer serves one stream.
class TensorWriter {
 public:
  // Makes a writer of `header` and then `tensors`, back to back, at most
  // `chunk_bytes` (1 to kMaxChunkBytes) of data in a message. A chunk may hold
  // parts of several tensors. Behind them come `later_bytes`, by Append.
  TensorWriter(const google::protobuf::MessageLite& header,
               std::vector<Payload> tensors, int64_t chunk_bytes = kChunkBytes,
               Frame frame = {}, int64_t later_bytes = 0);

  // Does the same for a header that is encoded already.
  TensorWriter(std::string_view header, std::vector<Payload> tensors,
               int64_t chunk_bytes, Frame frame, int64_t later_bytes = 0);

  // Adds the next of the later bytes.
  void Append(std::vector<Payload> tensors);

  // Returns whether the next message needs bytes that are not there yet.
  bool lacks_bytes() const;

  // Changes the size of the chunks from now on.
  void set_chunk_bytes(int64_t chunk_bytes);

  // Returns whether the last message has been made.
  bool is_done() const {
    return header_.empty() && sent_bytes_ == total_bytes_;
  }

  // Returns the next message, which may lack no bytes; nullopt after the last
  // one. There is always a first one, which carries the header, even without
  // data.
  std::optional<grpc::ByteBuffer> Next();

 private:
  std::vector<Payload> TakeParts(int64_t count_bytes);

  Frame frame_;
  std::string header_;  // Encoded; empty once sent.
  std::vector<Payload> tensors_;
  int64_t chunk_bytes_;
  int64_t total_bytes_;      // The later ones, too.
  int64_t given_bytes_ = 0;  // Those of `tensors_`, and of former ones.
  int64_t sent_bytes_ = 0;
  size_t current_ = 0;       // The tensor of the next byte,
  size_t current_sent_ = 0;  // and the number of its sent bytes.
};

}  // namespace backboned::wire

#endif  // BACKBONED_PROTO_WIRE_TENSOR_WRITER_H_
