#include "proto/wire/cursor.h"

#include <algorithm>
#include <limits>

namespace backboned::wire {
namespace {

// The bytes that Protobuf keeps free between a length and the largest int.
constexpr int64_t kSlopBytes = 16;
constexpr int64_t kMaxLength = std::numeric_limits<int32_t>::max() - kSlopBytes;

constexpr int kMaxVarintBytes = 10;
constexpr int kMaxTagBytes = 5;
constexpr int kMaxLengthBytes = 5;

}  // namespace

Cursor::Cursor(std::span<const std::span<const std::byte>> parts)
    : parts_(parts) {
  for (const auto& part : parts) limit_ += std::ssize(part);
}

bool Cursor::Fail(int64_t position) {
  position_ = position;
  return false;
}

std::optional<std::byte> Cursor::ReadByte() {
  if (AtLimit()) return std::nullopt;
  while (part_read_ == parts_[part_].size()) {
    ++part_;
    part_read_ = 0;
  }
  ++position_;
  return parts_[part_][part_read_++];
}

std::optional<uint64_t> Cursor::ReadVarint(int max_bytes) {
  uint64_t value = 0;
  for (int i = 0; i < max_bytes; ++i) {
    const std::optional<std::byte> byte = ReadByte();
    if (!byte) return std::nullopt;
    value |= std::to_integer<uint64_t>(*byte & std::byte{0x7F}) << (7 * i);
    if ((*byte & std::byte{0x80}) == std::byte{0}) return value;
  }
  Fail(position_ - 1);  // The number continues where it must end.
  return std::nullopt;
}

std::optional<uint64_t> Cursor::ReadVarint() {
  return ReadVarint(kMaxVarintBytes);
}

std::optional<Tag> Cursor::ReadTag() {
  const int64_t begin = position_;
  const std::optional<uint64_t> value = ReadVarint(kMaxTagBytes);
  if (!value) return std::nullopt;
  const Tag tag{static_cast<uint32_t>(*value), begin};
  if (tag.field() == 0 || tag.type() > WireType::kFixed32) {
    Fail(begin);
    return std::nullopt;
  }
  return tag;
}

std::optional<int64_t> Cursor::EnterLength() {
  const int64_t begin = position_;
  const std::optional<uint64_t> read = ReadVarint(kMaxLengthBytes);
  if (!read) return std::nullopt;
  const int64_t length = static_cast<int64_t>(*read);
  if (length > kMaxLength) {
    Fail(begin);
    return std::nullopt;
  }
  if (length > limit_ - position_) {
    Fail(limit_);
    return std::nullopt;
  }
  const int64_t outer_limit = limit_;
  limit_ = position_ + length;
  return outer_limit;
}

std::vector<std::span<const std::byte>> Cursor::TakeRest() {
  std::vector<std::span<const std::byte>> taken;
  while (!AtLimit()) {
    const auto rest = parts_[part_].subspan(part_read_);
    const size_t count =
        std::min(rest.size(), static_cast<size_t>(limit_ - position_));
    if (count > 0) taken.push_back(rest.first(count));
    part_read_ += count;
    position_ += static_cast<int64_t>(count);
    if (part_read_ == parts_[part_].size()) {
      ++part_;
      part_read_ = 0;
    }
  }
  return taken;
}

std::string Cursor::CopyRest() {
  std::string copy;
  copy.reserve(static_cast<size_t>(limit_ - position_));
  for (const auto part : TakeRest()) {
    copy.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  return copy;
}

std::string Cursor::Copy(int64_t begin) const {
  Cursor again(parts_);
  again.Skip(begin);
  again.limit_ = position_;
  return again.CopyRest();
}

bool Cursor::Skip(int64_t count_bytes) {
  if (count_bytes > limit_ - position_) return Fail(limit_);
  const int64_t outer_limit = limit_;
  limit_ = position_ + count_bytes;
  TakeRest();
  Leave(outer_limit);
  return true;
}

bool Cursor::SkipValue(Tag tag, int depth) {
  switch (tag.type()) {
    case WireType::kVarint:
      return ReadVarint().has_value();
    case WireType::kFixed64:
      return Skip(8);
    case WireType::kFixed32:
      return Skip(4);
    case WireType::kLength: {
      const std::optional<int64_t> outer_limit = EnterLength();
      if (!outer_limit) return false;
      TakeRest();
      Leave(*outer_limit);
      return true;
    }
    case WireType::kBeginGroup:
      return SkipGroup(tag.field(), depth - 1);
    case WireType::kEndGroup:
      break;
  }
  return Fail(tag.position);
}

bool Cursor::SkipGroup(uint32_t field, int depth) {
  if (depth < 0) return false;
  while (true) {
    const std::optional<Tag> tag = ReadTag();
    if (!tag) return false;
    if (tag->type() == WireType::kEndGroup) {
      return tag->field() == field || Fail(tag->position);
    }
    if (!SkipValue(*tag, depth)) return false;
  }
}

}  // namespace backboned::wire
