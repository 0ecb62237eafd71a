// Sets up a front: an Envoy's configuration, with all that it names.

#ifndef BACKBONED_CLIENT_CLI_FRONT_COMMAND_H_
#define BACKBONED_CLIENT_CLI_FRONT_COMMAND_H_

#include <string>

#include "absl/status/status.h"
#include "client/cli/command_line.h"

namespace backboned::cli {

struct FrontOptions {
  // The folder to write, which is made, for its owner alone.
  std::string out = "/etc/backboned/front";
  // Where the front listens, IP:port.
  std::string address;
  // The server's socket, unix:/path.
  std::string server = "unix:/run/backboned/front.sock";
  // The socket of Envoy's admin interface, unix:/path. Empty: admin.sock in
  // `out`.
  std::string admin;
  // The DNS name or IP address by which clients reach it. Empty: that of
  // `address`.
  std::string name;
  // Files with a certificate and its key. Empty: those of a CA of our own.
  std::string certificate;
  std::string key;
  // Files with the CAs of clients' certificates, and those that are revoked.
  std::string client_ca;
  std::string crl;
  // The file of the key that signs tokens, which is made if there is none.
  std::string signing_key;
  int max_connections = 400;
  bool json = false;
};

// Writes the folder. Files that are as they should be stay. Prints what is to
// be done then. Errors are one sentence for the one who typed the command.
absl::Status WriteFront(const FrontOptions& options);

// Adds `front`.
void AddFrontCommand(CommandLine& line);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_FRONT_COMMAND_H_
