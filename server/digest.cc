#include "server/digest.h"

#include <openssl/evp.h>

#include <memory>

#include "absl/strings/escaping.h"

namespace backboned {
namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void Update(const void* bytes, size_t count) {
    EVP_DigestUpdate(context_.get(), bytes, count);
  }
  std::string Finish() {
    std::string digest(EVP_MAX_MD_SIZE, '\0');
    unsigned int size = 0;
    EVP_DigestFinal_ex(context_.get(),
                       reinterpret_cast<unsigned char*>(digest.data()), &size);
    digest.resize(size);
    return digest;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string TensorDigest(std::span<const at::Tensor> tensors) {
  Sha256 hash;
  for (const at::Tensor& tensor : tensors) {
    hash.Update(tensor.const_data_ptr(), tensor.nbytes());
  }
  return absl::BytesToHexString(hash.Finish());
}

std::string TextDigest(std::string_view text) {
  Sha256 hash;
  hash.Update(text.data(), text.size());
  return hash.Finish();
}

}  // namespace backboned
