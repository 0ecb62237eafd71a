#include "client/cpp/credentials.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <ios>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace backboned::client {
namespace {

// With it a call's metadata stay below gRPC's limit of 8 KiB.
constexpr size_t kMaxTokenBytes = 7168;
constexpr size_t kMaxTextBytes = 1 << 20;

template <typename T, void (*kFree)(T*)>
struct Freeing {
  void operator()(T* owned) const { kFree(owned); }
};
using Certificate = std::unique_ptr<X509, Freeing<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freeing<EVP_PKEY, EVP_PKEY_free>>;

// OpenSSL would ask whoever sits at the terminal.
int NoPassphrase(char*, int, int, void*) { return -1; }

// Reads the first thing of a kind in a text by `read`; null if there is none.
template <typename Owner, typename Read>
Owner Parse(const std::string& pem, Read read) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> text(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
  Owner parsed(read(text.get(), nullptr, &NoPassphrase, nullptr));
  ERR_clear_error();  // gRPC asks the same thread's list for its errors.
  return parsed;
}

}  // namespace

bool UsesTls(const std::string& target, const Credentials& credentials) {
  return !credentials.ca.empty() || !credentials.certificate.empty() ||
         (credentials.token != nullptr && !absl::StartsWith(target, "unix:") &&
          !absl::StartsWith(target, "unix-abstract:"));
}

absl::Status CheckCredentials(const Credentials& credentials) {
  const auto& [ca, certificate, key, token] = credentials;
  if (certificate.empty() != key.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is a ",
                     key.empty() ? "certificate without its key"
                                 : "key without its certificate",
                     "; a client shows both, or neither"));
  }
  if (!ca.empty() && Parse<Certificate>(ca, PEM_read_bio_X509) == nullptr) {
    return absl::InvalidArgumentError("the CA is no certificate in PEM");
  }
  if (certificate.empty()) return absl::OkStatus();
  const auto shown = Parse<Certificate>(certificate, PEM_read_bio_X509);
  if (shown == nullptr) {
    return absl::InvalidArgumentError(
        "the certificate is no certificate in PEM");
  }
  const auto owned = Parse<Key>(key, PEM_read_bio_PrivateKey);
  if (owned == nullptr) {
    return absl::InvalidArgumentError(
        "the key is no private key in PEM without a passphrase");
  }
  const bool fits = X509_check_private_key(shown.get(), owned.get()) == 1;
  ERR_clear_error();
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError("the key is not that of the certificate");
}

absl::Status CheckToken(std::string_view token) {
  if (!token.empty() && token.size() <= kMaxTokenBytes &&
      std::ranges::all_of(token, absl::ascii_isgraph)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("a token is 1 to ", kMaxTokenBytes,
                   " printable characters of ASCII without spaces"));
}

TokenSource FixedToken(std::string token) {
  return [token = std::move(token)] { return token; };
}

TokenSource TokenFile(std::string path) {
  return [path = std::move(path)]() -> absl::StatusOr<std::string> {
    absl::StatusOr<std::string> text = ReadText("the token's file", path);
    if (text.ok()) absl::StripAsciiWhitespace(&*text);
    return text;
  };
}

absl::StatusOr<std::string> ReadText(const std::string& what,
                                     const std::string& path) {
  const auto refuse = [&](const std::string& why) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " ", path, " cannot be read: ", why));
  };
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxTextBytes + 1, '\0');
  file.read(text.data(), std::ssize(text));
  if (!file.is_open() || file.bad()) return refuse(std::strerror(errno));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxTextBytes) return refuse("it has more than a MiB");
  return text;
}

}  // namespace backboned::client
