#include "client/cli/certificates.h"

#include <arpa/inet.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdint>
#include <memory>

#include "absl/strings/str_cat.h"

namespace backboned::cli {
namespace {

using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

constexpr int kCaDays = 3650;
constexpr int kServerDays = 397;

Certificate Parse(const Bio& reader) {
  return Certificate(PEM_read_bio_X509(reader.get(), nullptr, nullptr, nullptr),
                     &X509_free);
}

Certificate Parse(const std::string& pem) { return Parse(Reader(pem)); }

// Returns a certificate of a key that is not signed yet. Clocks may be an hour
// behind ours.
Certificate Begin(const Key& key, const char* name, int days) {
  Certificate made(X509_new(), &X509_free);
  X509_set_version(made.get(), X509_VERSION_3);
  uint64_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial));
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(made.get()), serial >> 1);
  X509_time_adj_ex(X509_getm_notBefore(made.get()), 0, -3600, nullptr);
  X509_time_adj_ex(X509_getm_notAfter(made.get()), days, 0, nullptr);
  X509_set_pubkey(made.get(), key.get());
  X509_NAME_add_entry_by_txt(
      X509_get_subject_name(made.get()), "CN", MBSTRING_UTF8,
      reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
  return made;
}

void Extend(X509* made, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, made, nullptr, nullptr, 0);
  X509_EXTENSION* const extension =
      X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str());
  X509_add_ext(made, extension, -1);
  X509_EXTENSION_free(extension);
}

// Signs a certificate, and returns its PEM.
std::string Sign(const Certificate& made, X509* issuer, const Key& key) {
  X509_set_issuer_name(made.get(), X509_get_subject_name(issuer));
  Extend(made.get(), issuer, NID_subject_key_identifier, "hash");
  if (issuer != made.get()) {
    Extend(made.get(), issuer, NID_authority_key_identifier, "keyid");
  }
  X509_sign(made.get(), key.get(), EVP_sha256());
  const Bio writer = Writer();
  PEM_write_bio_X509(writer.get(), made.get());
  return TextOf(writer);
}

}  // namespace

bool IsIp(const std::string& name) {
  unsigned char bytes[16];
  return inet_pton(AF_INET, name.c_str(), bytes) == 1 ||
         inet_pton(AF_INET6, name.c_str(), bytes) == 1;
}

std::string MakeCa(const Key& key) {
  const Certificate made = Begin(key, "Backboned front CA", kCaDays);
  X509* const ca = made.get();
  Extend(ca, ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  Extend(ca, ca, NID_key_usage, "critical,keyCertSign,cRLSign");
  return Sign(made, ca, key);
}

std::string MakeServerCertificate(const Key& key, const std::string& name,
                                  const std::string& ca, const Key& ca_key) {
  const Certificate issuer = Parse(ca);
  const Certificate made = Begin(key, "Backboned front", kServerDays);
  X509* const server = made.get();
  const auto extend = [&](int kind, const std::string& value) {
    Extend(server, issuer.get(), kind, value);
  };
  extend(NID_basic_constraints, "critical,CA:FALSE");
  extend(NID_key_usage, "critical,digitalSignature");
  extend(NID_ext_key_usage, "serverAuth");
  extend(NID_subject_alt_name, absl::StrCat(IsIp(name) ? "IP:" : "DNS:", name));
  return Sign(made, issuer.get(), ca_key);
}

bool IsValidAt(const std::string& certificate, absl::Time time) {
  const Certificate parsed = Parse(certificate);
  if (parsed == nullptr) return false;
  time_t seconds = absl::ToTimeT(time);
  return X509_cmp_time(X509_get0_notAfter(parsed.get()), &seconds) > 0;
}

bool HasKey(const std::string& certificate, const Key& key) {
  const Certificate parsed = Parse(certificate);
  return parsed != nullptr &&
         X509_check_private_key(parsed.get(), key.get()) == 1;
}

bool Fits(const std::string& certificate, const Key& key,
          const std::string& name, const std::string& ca) {
  const Certificate parsed = Parse(certificate);
  const Certificate issuer = Parse(ca);
  if (parsed == nullptr || issuer == nullptr) return false;
  const int named =
      IsIp(name)
          ? X509_check_ip_asc(parsed.get(), name.c_str(), 0)
          : X509_check_host(parsed.get(), name.data(), name.size(), 0, nullptr);
  return named == 1 && HasKey(certificate, key) &&
         X509_verify(parsed.get(), X509_get0_pubkey(issuer.get())) == 1;
}

absl::Status CheckPair(const std::string& chain, const std::string& key) {
  const Certificate parsed = Parse(chain);
  if (parsed == nullptr) {
    return absl::InvalidArgumentError("--certificate is no certificate of PEM");
  }
  const Key private_key = ParseKey(key);
  if (private_key == nullptr) {
    return absl::InvalidArgumentError(
        "--key is no private key of PEM without a passphrase");
  }
  if (X509_check_private_key(parsed.get(), private_key.get()) != 1) {
    return absl::InvalidArgumentError(
        "--key is not the key of the first certificate in --certificate");
  }
  return absl::OkStatus();
}

absl::Status CheckCas(const std::string& option, const std::string& pem) {
  const Bio reader = Reader(pem);
  int count = 0;
  while (const Certificate parsed = Parse(reader)) {
    if (X509_check_ca(parsed.get()) == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(option, " has a certificate that is no CA's"));
    }
    ++count;
  }
  if (count > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(option, " has no certificate of PEM"));
}

absl::Status CheckCrl(const std::string& pem) {
  const std::unique_ptr<X509_CRL, decltype(&X509_CRL_free)> list(
      PEM_read_bio_X509_CRL(Reader(pem).get(), nullptr, nullptr, nullptr),
      &X509_CRL_free);
  if (list != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "--crl is no list of revoked certificates of PEM");
}

}  // namespace backboned::cli
