// Computes SHA-256.

#ifndef BACKBONED_BASE_DIGEST_H_
#define BACKBONED_BASE_DIGEST_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace backboned {

// Takes bytes piece by piece.
class Sha256 {
 public:
  Sha256();
  ~Sha256();

  void Update(std::span<const std::byte> bytes);

  // Returns the SHA-256 of all bytes, itself 32 bytes. Call it once.
  std::string Take();

  // Returns the same as 64 hexadecimal digits.
  std::string TakeHex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// Returns the SHA-256 of `text`, 32 bytes.
std::string TextDigest(std::string_view text);

}  // namespace backboned

#endif  // BACKBONED_BASE_DIGEST_H_
