#include "proto/wire/message.h"

#include <google/protobuf/io/coded_stream.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/wire/cursor.h"

namespace backboned::wire {
namespace {

constexpr uint32_t kChunkField = 2;
constexpr uint32_t kOffsetField = 1;
constexpr uint32_t kDataField = 2;

// The most levels of messages and groups, as in generated code.
constexpr int kMaxDepth = 100;

std::span<const std::byte> BytesOf(const grpc::Slice& slice) {
  return {reinterpret_cast<const std::byte*>(slice.begin()), slice.size()};
}

}  // namespace

absl::StatusOr<Message> Message::Decode(grpc::ByteBuffer buffer) {
  return Decode(std::move(buffer), /*is_part=*/false);
}

absl::StatusOr<Message> Message::DecodePart(grpc::ByteBuffer buffer) {
  return Decode(std::move(buffer), /*is_part=*/true);
}

absl::StatusOr<Message> Message::Decode(grpc::ByteBuffer buffer, bool is_part) {
  Message message(is_part);
  if (buffer.Valid() && !buffer.Dump(&message.slices_).ok()) {
    return absl::InvalidArgumentError("cannot decompress the message");
  }
  std::vector<std::span<const std::byte>> parts;
  parts.reserve(message.slices_.size());
  for (const grpc::Slice& slice : message.slices_) {
    parts.push_back(BytesOf(slice));
  }
  Cursor cursor(parts);
  if (!message.DecodeFields(cursor)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot decode the message at byte ", cursor.position()));
  }
  if (message.chunk_bytes_ > kMaxChunkBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk has ", message.chunk_bytes_, " bytes, at most ",
                     kMaxChunkBytes, " are allowed"));
  }
  return message;
}

bool Message::DecodeFields(Cursor& cursor) {
  while (!cursor.AtLimit()) {
    const std::optional<Tag> tag = cursor.ReadTag();
    if (!tag) return false;
    const bool is_message = tag->type() == WireType::kLength;
    bool ok;
    if (is_message && IsHeader(tag->field())) {
      ok = DecodeHeader(cursor, tag->field());
    } else if (is_message && tag->field() == kChunkField) {
      ok = DecodeChunk(cursor);
    } else {
      ok = cursor.SkipValue(*tag, kMaxDepth);
      if (ok && is_part_) rest_ += cursor.Copy(tag->position);
    }
    if (!ok) return false;
  }
  return true;
}

bool Message::IsHeader(uint32_t field) const {
  return is_part_ ? field >= kFirstOneofField : field == kHeaderField;
}

bool Message::DecodeHeader(Cursor& cursor, uint32_t field) {
  const std::optional<int64_t> outer_limit = cursor.EnterLength();
  if (!outer_limit) return false;
  if (field != header_field_) headers_.clear();
  header_field_ = field;
  const int64_t position = cursor.position();
  headers_.push_back({position, cursor.CopyRest()});
  cursor.Leave(*outer_limit);
  return true;
}

bool Message::DecodeChunk(Cursor& cursor) {
  const std::optional<int64_t> outer_limit = cursor.EnterLength();
  if (!outer_limit) return false;
  has_chunk_ = true;
  if (!DecodeChunkFields(cursor)) return false;
  cursor.Leave(*outer_limit);
  return true;
}

bool Message::DecodeChunkFields(Cursor& cursor) {
  while (!cursor.AtLimit()) {
    const std::optional<Tag> tag = cursor.ReadTag();
    if (!tag) return false;
    if (tag->field() == kOffsetField && tag->type() == WireType::kVarint) {
      const std::optional<uint64_t> offset = cursor.ReadVarint();
      if (!offset) return false;
      chunk_offset_ = static_cast<int64_t>(*offset);
    } else if (tag->field() == kDataField && tag->type() == WireType::kLength) {
      const std::optional<int64_t> outer_limit = cursor.EnterLength();
      if (!outer_limit) return false;
      chunk_bytes_ = cursor.limit() - cursor.position();
      chunk_parts_ = cursor.TakeRest();
      cursor.Leave(*outer_limit);
    } else if (!cursor.SkipValue(*tag, kMaxDepth - 1)) {
      return false;
    }
  }
  return true;
}

absl::Status Message::ParseHeader(google::protobuf::MessageLite& header) const {
  header.Clear();
  for (const Header& occurrence : headers_) {
    google::protobuf::io::CodedInputStream input(
        reinterpret_cast<const uint8_t*>(occurrence.bytes.data()),
        static_cast<int>(occurrence.bytes.size()));
    input.SetRecursionLimit(kMaxDepth - 1);
    if (!header.MergeFromCodedStream(&input) ||
        !input.ConsumedEntireMessage()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "cannot decode the header at byte ", occurrence.position));
    }
  }
  return absl::OkStatus();
}

std::string Message::header_bytes() const {
  std::string bytes;
  for (const Header& header : headers_) bytes += header.bytes;
  return bytes;
}

absl::Status Message::ParseRest(google::protobuf::MessageLite& rest) const {
  if (rest.ParseFromString(rest_)) return absl::OkStatus();
  return absl::InvalidArgumentError("cannot decode the part's fields");
}

}  // namespace backboned::wire
