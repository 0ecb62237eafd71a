// SHA-256 over tensors and bytes.

#ifndef BACKBONED_SERVER_DIGEST_H_
#define BACKBONED_SERVER_DIGEST_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace backboned {

// Takes bytes piece by piece.
class Sha256 {
 public:
  Sha256();
  ~Sha256();

  void Update(std::span<const std::byte> bytes);

  // Returns the SHA-256 of all bytes, 32 of them; once.
  std::string Take();

  // As Take, as 64 hexadecimal digits.
  std::string TakeHex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// Returns the SHA-256 of the tensors' bytes back to back, as 64 hexadecimal
// digits. The tensors: on the CPU, contiguous, any dtype.
std::string TensorDigest(std::span<const at::Tensor> tensors);

// Returns the SHA-256 of `text`, 32 bytes.
std::string TextDigest(std::string_view text);

}  // namespace backboned

#endif  // BACKBONED_SERVER_DIGEST_H_
