#include "server/rpc/input_digest.h"

#include <cstdint>

#include "server/digest.h"

namespace backboned::rpc {
namespace {

// Appends a number as 64 bits, little-endian.
void Append(std::string& text, int64_t number) {
  const auto bits = static_cast<uint64_t>(number);
  for (int shift = 0; shift < 64; shift += 8) {
    text.push_back(static_cast<char>(bits >> shift & 0xff));
  }
}

}  // namespace

std::string InputDigest(const v1::TensorSpec& spec,
                        std::span<const std::byte> bytes) {
  std::string head;
  Append(head, 1);  // Inputs.
  Append(head, static_cast<int64_t>(spec.name().size()));
  head.append(spec.name());
  Append(head, spec.dtype());
  Append(head, spec.shape_size());
  for (int64_t size : spec.shape()) Append(head, size);
  Sha256 hash;
  hash.Update(std::as_bytes(std::span(head)));
  hash.Update(bytes);
  return hash.Take();
}

}  // namespace backboned::rpc
