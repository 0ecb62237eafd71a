// Reads Protobuf's elements from memory in several parts.

#ifndef BACKBONED_PROTO_WIRE_CURSOR_H_
#define BACKBONED_PROTO_WIRE_CURSOR_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace backboned::wire {

// The encoding of a field: the lower three bits of its tag.
enum class WireType : uint32_t {
  kVarint = 0,
  kFixed64 = 1,
  kLength = 2,
  kBeginGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5,
};

// The number and the encoding of a field.
struct Tag {
  uint32_t value = 0;    // As encoded.
  int64_t position = 0;  // Its first byte.

  uint32_t field() const { return value >> 3; }
  WireType type() const { return static_cast<WireType>(value & 7); }
};

// Reads forward from the first byte. Accepts and refuses the same bytes as the
// parser of Protobuf 3.21.
//
// A function that fails returns nullopt or false and leaves position() at the
// first byte that does not belong to a valid encoding. The cursor must not be
// used then.
//
// Not thread-safe.
class Cursor {
 public:
  // `parts` must outlive the cursor.
  explicit Cursor(std::span<const std::span<const std::byte>> parts);

  // The number of bytes read so far.
  int64_t position() const { return position_; }

  // The end of the message, or of the bytes that EnterLength() entered: no
  // later byte is read.
  int64_t limit() const { return limit_; }

  // Returns whether no bytes are left before the limit.
  bool AtLimit() const { return position_ == limit_; }

  // Reads a tag. Fails on field number 0 and on unknown wire types.
  std::optional<Tag> ReadTag();

  // Reads a number. A number of more than 64 bits loses the upper ones.
  std::optional<uint64_t> ReadVarint();

  // Reads a length and limits reading to as many bytes. Returns the old limit,
  // for Leave(). Fails if the new limit would be past the old one.
  std::optional<int64_t> EnterLength();

  // Resets the limit to `outer_limit`.
  void Leave(int64_t outer_limit) { limit_ = outer_limit; }

  // Reads the bytes up to the limit, as parts that are not empty.
  std::vector<std::span<const std::byte>> TakeRest();

  // Reads the same, copied into one string.
  std::string CopyRest();

  // Returns the bytes from `begin` up to position().
  std::string Copy(int64_t begin) const;

  // Skips the value of a field whose tag was just read. Groups may nest `depth`
  // times.
  bool SkipValue(Tag tag, int depth);

 private:
  bool Fail(int64_t position);
  std::optional<std::byte> ReadByte();
  std::optional<uint64_t> ReadVarint(int max_bytes);
  bool Skip(int64_t count_bytes);
  bool SkipGroup(uint32_t field, int depth);

  std::span<const std::span<const std::byte>> parts_;
  int64_t position_ = 0;
  int64_t limit_ = 0;
  size_t part_ = 0;  // The part that the next byte is in, or an exhausted one,
  size_t part_read_ = 0;  // and the number of its bytes that were read.
};

}  // namespace backboned::wire

#endif  // BACKBONED_PROTO_WIRE_CURSOR_H_
