#include "client/cli/tokens.h"

#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>

#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"

namespace backboned::cli {
namespace {

// Names a key by its public point.
std::string KeyId(const Key& key) {
  return absl::BytesToHexString(TextDigest(PointOf(key)).substr(0, 8));
}

// Returns the DER of an ECDSA signature.
std::string SignDer(const Key& key, const std::string& text) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(
      EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  size_t size = 0;
  EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key.get());
  EVP_DigestSign(context.get(), nullptr, &size, bytes, text.size());
  std::string der(size, '\0');
  EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(der.data()),
                 &size, bytes, text.size());
  der.resize(size);
  return der;
}

// Returns the two numbers of a signature, 32 bytes each, as a token has them.
std::string SignNumbers(const Key& key, const std::string& text) {
  const std::string der = SignDer(key, text);
  const auto* bytes = reinterpret_cast<const unsigned char*>(der.data());
  const std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> signature(
      d2i_ECDSA_SIG(nullptr, &bytes, static_cast<long>(der.size())),
      &ECDSA_SIG_free);
  std::string numbers(64, '\0');
  auto* out = reinterpret_cast<unsigned char*>(numbers.data());
  BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), out, 32);
  BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), out + 32, 32);
  return numbers;
}

}  // namespace

std::string SignToken(const Key& key, const Claims& claims) {
  const nlohmann::ordered_json header = {
      {"alg", "ES256"}, {"typ", "JWT"}, {"kid", KeyId(key)}};
  const nlohmann::ordered_json body = {
      {"iss", kIssuer},
      {"aud", kIssuer},
      {"sub", claims.user},
      {"serial", claims.serial},
      {"iat", absl::ToUnixSeconds(claims.issued)},
      {"exp", absl::ToUnixSeconds(claims.expires)}};
  const std::string text =
      absl::StrCat(absl::WebSafeBase64Escape(header.dump()), ".",
                   absl::WebSafeBase64Escape(body.dump()));
  return absl::StrCat(text, ".",
                      absl::WebSafeBase64Escape(SignNumbers(key, text)));
}

std::string KeySetOf(const Key& key) {
  const std::string point = PointOf(key);
  const nlohmann::ordered_json jwk = {
      {"kty", "EC"},
      {"crv", "P-256"},
      {"alg", "ES256"},
      {"use", "sig"},
      {"kid", KeyId(key)},
      {"x", absl::WebSafeBase64Escape(point.substr(0, 32))},
      {"y", absl::WebSafeBase64Escape(point.substr(32))}};
  return nlohmann::ordered_json(
             {{"keys", nlohmann::ordered_json::array({jwk})}})
      .dump();
}

}  // namespace backboned::cli
