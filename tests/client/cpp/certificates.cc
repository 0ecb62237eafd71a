#include "tests/client/cpp/certificates.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/random_id.h"

namespace backboned::client {
namespace {

constexpr long kDay = 24 * 60 * 60;

std::shared_ptr<EVP_PKEY> NewKey() {
  return {EVP_EC_gen("P-256"), &EVP_PKEY_free};
}

// Returns what `write` writes.
template <typename Write>
std::string Pem(Write write) {
  const std::shared_ptr<BIO> text(BIO_new(BIO_s_mem()), &BIO_free);
  write(text.get());
  char* data = nullptr;
  const long size = BIO_get_mem_data(text.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

std::string PemOf(X509& certificate) {
  return Pem([&](BIO* text) { PEM_write_bio_X509(text, &certificate); });
}

void Extend(X509& certificate, int kind, const char* value) {
  const std::shared_ptr<X509_EXTENSION> extension(
      X509V3_EXT_conf_nid(nullptr, nullptr, kind, value), &X509_EXTENSION_free);
  X509_add_ext(&certificate, extension.get(), -1);
}

// Makes a certificate of `key`, to be signed by `issuer`; null: by itself.
std::shared_ptr<X509> Sign(EVP_PKEY& key, EVP_PKEY& signing, X509* issuer,
                           const std::string& name, int days) {
  static long serial = 0;
  std::shared_ptr<X509> made(X509_new(), &X509_free);
  X509_set_version(made.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(made.get()), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(made.get()),
                  std::min(days - 1, -1) * kDay);
  X509_gmtime_adj(X509_getm_notAfter(made.get()), days * kDay);
  X509_NAME_add_entry_by_txt(
      X509_get_subject_name(made.get()), "CN", MBSTRING_ASC,
      reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509* const by = issuer == nullptr ? made.get() : issuer;
  X509_set_issuer_name(made.get(), X509_get_subject_name(by));
  X509_set_pubkey(made.get(), &key);
  if (issuer == nullptr) {
    Extend(*made, NID_basic_constraints, "critical,CA:TRUE");
  } else {
    Extend(*made, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
  }
  X509_sign(made.get(), &signing, EVP_sha256());
  return made;
}

}  // namespace

Authority::Authority()
    : key_(NewKey()),
      own_(Sign(*key_, *key_, nullptr, absl::StrCat("authority ", RandomId()),
                1)),
      certificate_(PemOf(*own_)) {}

Identity Authority::Issue(int days) const {
  const std::shared_ptr<EVP_PKEY> key = NewKey();
  return {PemOf(*Sign(*key, *key_, own_.get(), "somebody", days)),
          Pem([&](BIO* text) {
            PEM_write_bio_PrivateKey(text, key.get(), nullptr, nullptr, 0,
                                     nullptr, nullptr);
          })};
}

std::shared_ptr<grpc::ServerCredentials> Authority::Serve(bool asks,
                                                          int days) const {
  grpc::SslServerCredentialsOptions options(
      asks ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
           : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  const Identity shown = Issue(days);
  options.pem_root_certs = certificate_;
  options.pem_key_cert_pairs.push_back({shown.key, shown.certificate});
  return grpc::SslServerCredentials(options);
}

}  // namespace backboned::client
