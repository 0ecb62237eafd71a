// Makes certificates for tests.

#ifndef BACKBONED_TESTS_CLIENT_CPP_CERTIFICATES_H_
#define BACKBONED_TESTS_CLIENT_CPP_CERTIFICATES_H_

#include <grpcpp/security/server_credentials.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

namespace backboned::client {

// A certificate and its key, in PEM.
struct Identity {
  std::string certificate;
  std::string key;
};

// Signs certificates for localhost and 127.0.0.1.
class Authority {
 public:
  Authority();

  // The authority's own certificate, in PEM.
  const std::string& certificate() const { return certificate_; }

  // Issues a certificate that ends in so many days; negative: it has ended.
  Identity Issue(int days = 1) const;

  // Returns credentials of a server with a certificate of this authority.
  // `asks`: whether clients need one too.
  std::shared_ptr<grpc::ServerCredentials> Serve(bool asks = false,
                                                 int days = 1) const;

 private:
  std::shared_ptr<EVP_PKEY> key_;
  std::shared_ptr<X509> own_;
  std::string certificate_;
};

}  // namespace backboned::client

#endif  // BACKBONED_TESTS_CLIENT_CPP_CERTIFICATES_H_
