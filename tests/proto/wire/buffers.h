// Makes gRPC's buffers from bytes that a test spells out.

#ifndef BACKBONED_TESTS_PROTO_WIRE_BUFFERS_H_
#define BACKBONED_TESTS_PROTO_WIRE_BUFFERS_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backboned/v1/backbone_service.pb.h"
#include "proto/wire/message.h"

namespace backboned::wire {

// Returns a header of two float32 parameters.
inline v1::SetParamsHeader Header() {
  v1::SetParamsHeader header;
  header.set_instance("net");
  header.mutable_spec()->set_dtype(v1::DATA_TYPE_FLOAT32);
  header.mutable_spec()->add_shape(2);
  return header;
}

// Returns a buffer of `bytes` in slices of `slice_bytes` each.
inline grpc::ByteBuffer BufferOf(std::string_view bytes,
                                 size_t slice_bytes = 8192) {
  std::vector<grpc::Slice> slices;
  for (size_t begin = 0; begin < bytes.size(); begin += slice_bytes) {
    const std::string_view part = bytes.substr(begin, slice_bytes);
    slices.emplace_back(part.data(), part.size());
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

// Returns all bytes of `buffer`.
inline std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return "cannot be read";
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

// Returns the data of the message's chunk.
inline std::string DataOf(const Message& message) {
  std::string data;
  for (const auto part : message.chunk_parts()) {
    data.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  return data;
}

// Returns bytes that differ from their neighbours, so that misplaced ones show.
inline std::string Pattern(size_t count) {
  std::string bytes(count, '\0');
  for (size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<char>(i * 31 + i / 256);
  }
  return bytes;
}

inline std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

inline std::span<std::byte> AsWritableBytes(std::string& text) {
  return std::as_writable_bytes(std::span(text));
}

}  // namespace backboned::wire

#endif  // BACKBONED_TESTS_PROTO_WIRE_BUFFERS_H_
