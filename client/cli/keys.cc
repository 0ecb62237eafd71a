#include "client/cli/keys.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/pem.h>

#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/replace_file.h"
#include "client/cli/files.h"

namespace backboned::cli {
namespace {

// Answers for a person who would be asked for a passphrase: there is none.
int NoPassphrase(char*, int, int, void*) { return -1; }

bool IsP256(const Key& key) {
  return EVP_PKEY_is_a(key.get(), "EC") == 1 && PointOf(key).size() == 64;
}

absl::Status MakeKeyFile(const std::string& path) {
  const Key key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  const Bio writer = Writer();
  PEM_write_bio_PKCS8PrivateKey(writer.get(), key.get(), nullptr, nullptr, 0,
                                nullptr, nullptr);
  return MakeFile(path, TextOf(writer));
}

}  // namespace

Bio Reader(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())),
             &BIO_free_all);
}

Bio Writer() { return Bio(BIO_new(BIO_s_mem()), &BIO_free_all); }

std::string TextOf(const Bio& writer) {
  char* text = nullptr;
  const long size = BIO_get_mem_data(writer.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

Key ParseKey(const std::string& pem) {
  return Key(PEM_read_bio_PrivateKey(Reader(pem).get(), nullptr, &NoPassphrase,
                                     nullptr),
             &EVP_PKEY_free);
}

absl::StatusOr<Key> ReadOrMakeKey(const std::string& path) {
  absl::StatusOr<std::string> pem = ReadText(path);
  if (absl::IsNotFound(pem.status())) {
    const absl::Status made = MakeKeyFile(path);
    // Somebody else may have been faster.
    if (!made.ok() && !absl::IsAlreadyExists(made)) return made;
    pem = ReadText(path);
  }
  if (!pem.ok()) return pem.status();
  Key key = ParseKey(*pem);
  if (key != nullptr && IsP256(key)) return key;
  return absl::FailedPreconditionError(absl::StrCat(
      path,
      " is no private key of curve P-256, PEM without a passphrase; "
      "remove it, and a new one is made"));
}

std::string PointOf(const Key& key) {
  unsigned char point[256];
  size_t size = 0;
  EVP_PKEY_get_octet_string_param(key.get(), OSSL_PKEY_PARAM_PUB_KEY, point,
                                  sizeof(point), &size);
  if (size == 0) return {};
  // Behind the byte that says "uncompressed".
  return std::string(reinterpret_cast<const char*>(point) + 1, size - 1);
}

}  // namespace backboned::cli
