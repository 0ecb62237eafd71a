// Receives a stream of tensors.

#ifndef BACKBONED_PROTO_WIRE_TENSOR_READER_H_
#define BACKBONED_PROTO_WIRE_TENSOR_READER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "proto/wire/message.h"

namespace backboned::wire {

// Places the chunks of a stream into memory that the caller provides.
//
// Independent of calls and LibTorch: the same reader serves the server, the
// client, the fuzzer and the tests.
//
// Not thread-safe; one reader serves one stream.
class TensorReader {
 public:
  // Makes a reader that fills `destinations`, one after the other. Their memory
  // must outlive the reader.
  explicit TensorReader(std::vector<std::span<std::byte>> destinations);

  // Copies the data of the message's chunk to its place, without an
  // intermediate copy. Does nothing for a message without a chunk.
  //
  // Returns kInvalidArgument, and places nothing of this chunk, if it does not
  // start at the end of the last one or exceeds the tensors.
  absl::Status Accept(const Message& message);

  // Returns kInvalidArgument if bytes are still missing.
  absl::Status Finish() const;

 private:
  void Place(std::span<const std::byte> part);

  std::vector<std::span<std::byte>> destinations_;
  int64_t expected_bytes_ = 0;
  int64_t received_bytes_ = 0;
  size_t current_ = 0;         // The destination of the next byte,
  size_t current_filled_ = 0;  // and the number of its filled bytes.
};

}  // namespace backboned::wire

#endif  // BACKBONED_PROTO_WIRE_TENSOR_READER_H_
