// Reads safetensors files, and refuses those that are not sound.
//
// A file is 8 bytes of little-endian header length, the header in JSON (name,
// dtype, shape and data_offsets of each tensor), and the tensors' data. A file
// is sound if the data of the tensors follow one another from the first byte to
// the last, without gap or overlap, and each has the length of its shape. A
// file's numbers are not trusted: the header is read only if it is short enough
// and inside the file, a tensor only after all are checked.
//
// The file is read, not mapped, so that cutting it short meanwhile is an error
// and not a signal.

#ifndef BACKBONED_BASE_SAFETENSORS_H_
#define BACKBONED_BASE_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/descriptor.h"

namespace backboned {

inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr size_t kMaxSafetensorsNameBytes = 512;
inline constexpr size_t kMaxSafetensorsDimensions = 8;

// The element types of a file.
enum class SafetensorsDtype {
  kBool,
  kU8,
  kI8,
  kI16,
  kI32,
  kI64,
  kF16,
  kBf16,
  kF32,
  kF64
};

// Returns a type's name in a file: `F32`.
std::string_view NameOf(SafetensorsDtype dtype);

// Returns the bytes of an element.
int64_t ElementBytes(SafetensorsDtype dtype);

// A tensor of a file.
struct SafetensorsEntry {
  std::string name;
  SafetensorsDtype dtype = SafetensorsDtype::kF32;
  std::vector<int64_t> shape;
  // Its first byte, counted from the header's end, and one past its last.
  int64_t begin = 0;
  int64_t end = 0;
};

// Reads `header`, the JSON text, of a file with `data_bytes` behind it. Returns
// the tensors in the order of their data.
//
// Returns kFailedPrecondition (kWeightsUnreadable), which says what is unsound.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(
    std::string_view header, int64_t data_bytes);

// Returns the first bytes of a file whose tensors are `entries`, in the order
// of their data: length and header, padded to a multiple of 8. The same entries
// give the same bytes.
std::string SafetensorsHeader(std::span<const SafetensorsEntry> entries);

// An open file whose header is checked. Reads from begin to end, once.
class SafetensorsFile {
 public:
  // Receives all bytes of the file in order, as they are read.
  using Observer = std::function<void(std::span<const std::byte>)>;

  // Reads the header of the regular file `fd`, and closes `fd` in the end.
  //
  // Returns ParseSafetensorsHeader's errors, also if `fd` is no regular file;
  // kInternal if it cannot be read. An `observer` is optional.
  static absl::StatusOr<SafetensorsFile> Read(int fd, Observer observer);

  // The tensors, in the order of their data.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }

  // Reads the next bytes of the data. The caller must not ask for more than
  // there are.
  absl::Status ReadNext(std::span<std::byte> bytes);

 private:
  SafetensorsFile(int fd, Observer observer)
      : file_(fd), observer_(std::move(observer)) {}

  absl::Status ReadHeader();

  Descriptor file_;
  Observer observer_;
  std::vector<SafetensorsEntry> entries_;
};

}  // namespace backboned

#endif  // BACKBONED_BASE_SAFETENSORS_H_
