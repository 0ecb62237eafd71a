// Writes the configuration of an Envoy that stands before a server.

#ifndef BACKBONED_CLIENT_CLI_FRONT_FILES_H_
#define BACKBONED_CLIENT_CLI_FRONT_FILES_H_

#include <string>

namespace backboned::cli {

struct FrontConfig {
  // An absolute folder, without a slash at its end.
  std::string folder;
  std::string host;
  int port = 0;
  // The paths of the server's Unix socket, and of Envoy's, which it makes for
  // who looks after it.
  std::string socket;
  std::string admin;
  int max_connections = 0;
  // Clients are asked for certificates, which clients.json is about.
  bool certificates = false;
  // Unary methods, those of contract.pb, can be called with JSON.
  bool json = false;
};

// Returns envoy.yaml. It names certificate.json, tokens.json, clients.json and
// contract.pb in the folder.
std::string EnvoyYaml(const FrontConfig& config);

// Returns certificate.json: the front's certificate with its chain and its key,
// both PEM, in one file, so that one rename changes both.
std::string CertificateJson(const std::string& chain, const std::string& key);

// Returns clients.json: the CAs of clients' certificates, and what of these is
// revoked, if `crl` is not empty.
std::string ClientsJson(const std::string& cas, const std::string& crl);

// Returns tokens.json: the filter that takes tokens which a key of this set has
// signed.
std::string TokensJson(const std::string& key_set);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_FRONT_FILES_H_
