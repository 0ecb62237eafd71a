// Makes and checks certificates.

#ifndef BACKBONED_CLIENT_CLI_CERTIFICATES_H_
#define BACKBONED_CLIENT_CLI_CERTIFICATES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cli/keys.h"

namespace backboned::cli {

// Returns whether a name is an IP address.
bool IsIp(const std::string& name);

// Returns a CA's own certificate, PEM, for ten years.
std::string MakeCa(const Key& key);

// Returns a server's certificate, PEM, for 397 days, of the CA `ca` with the
// key `ca_key`. `name` is the DNS name or the IP address that clients call.
std::string MakeServerCertificate(const Key& key, const std::string& name,
                                  const std::string& ca, const Key& ca_key);

// Returns whether a certificate is valid until `time`.
bool IsValidAt(const std::string& certificate, absl::Time time);

// Returns whether a certificate has this key.
bool HasKey(const std::string& certificate, const Key& key);

// Returns whether a server's certificate is of `ca`, has this key and this
// name.
bool Fits(const std::string& certificate, const Key& key,
          const std::string& name, const std::string& ca);

// These return kInvalidArgument, which says what is wrong, unless a PEM is a
// certificate with its chain and the key is its key; certificates of CAs; a
// list of revoked certificates.
absl::Status CheckPair(const std::string& chain, const std::string& key);
absl::Status CheckCas(const std::string& option, const std::string& pem);
absl::Status CheckCrl(const std::string& pem);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_CERTIFICATES_H_
