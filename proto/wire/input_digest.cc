#include "proto/wire/input_digest.h"

#include <openssl/evp.h>

#include <cstdint>
#include <memory>

namespace backboned::wire {
namespace {

// Appends a number as 64 bits, little-endian.
void Append(std::string& text, int64_t number) {
  const auto bits = static_cast<uint64_t>(number);
  for (int shift = 0; shift < 64; shift += 8) {
    text.push_back(static_cast<char>(bits >> shift & 0xff));
  }
}

}  // namespace

std::string InputDigest(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& inputs,
    const std::vector<std::span<const std::byte>>& bytes) {
  std::string head;
  Append(head, inputs.size());
  for (const v1::TensorSpec& spec : inputs) {
    Append(head, static_cast<int64_t>(spec.name().size()));
    head.append(spec.name());
    Append(head, spec.dtype());
    Append(head, spec.shape_size());
    for (const int64_t size : spec.shape()) Append(head, size);
  }
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> hash(
      EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_DigestInit_ex(hash.get(), EVP_sha256(), nullptr);
  EVP_DigestUpdate(hash.get(), head.data(), head.size());
  for (const std::span<const std::byte> input : bytes) {
    EVP_DigestUpdate(hash.get(), input.data(), input.size());
  }
  std::string digest(32, '\0');
  EVP_DigestFinal_ex(hash.get(),
                     reinterpret_cast<unsigned char*>(digest.data()), nullptr);
  return digest;
}

}  // namespace backboned::wire
