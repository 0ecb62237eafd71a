// Changes the users file, and gives users what they connect with.

#ifndef BACKBONED_CLIENT_CLI_USER_COMMANDS_H_
#define BACKBONED_CLIENT_CLI_USER_COMMANDS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "client/cli/command_line.h"

namespace backboned::cli {

// Adds `user` and its commands.
void AddUserCommands(CommandLine& line);

// Returns the users file of BACKBONED_USERS, or the usual one.
std::string DefaultUsersFile();

// Adds --users to a command.
void AddUsersFile(CLI::App* command, std::string& users_file);

// Errors of these functions are one sentence for the one who typed the command.

struct NewUser {
  std::string name;
  std::string rights = "train";
  std::optional<double> share;
  std::optional<double> quota;
  // A Unix account, if the user connects by it.
  std::string account;
  // As in the users file; empty: never.
  std::string expires;
  // Where users with an account connect.
  std::string socket = "unix:/run/backboned/lab.sock";
};

// Adds a user; makes the file if there is none. Prints the connection file of a
// user who has an account, and on standard error how others get theirs.
absl::Status AddUser(const std::string& users_file, const NewUser& added);

// Prints the users, a line each, or as JSON.
absl::Status ListUsers(const std::string& users_file, bool json);

absl::Status RemoveUser(const std::string& users_file, const std::string& name);

struct TokenOptions {
  std::string name;
  int days = 90;
  // Empty: `signing-key.pem` beside the users file.
  std::string signing_key;
  // The file to write. Empty: standard output.
  std::string connection;
  // The folder of `backbonectl front`, for the target and the CA.
  std::string front = "/etc/backboned/front";
  // Instead of the folder's.
  std::string target;
  std::string ca_file;
};

// Gives a user a new token, in a connection file. The user's older tokens are
// refused from then on.
absl::Status GiveToken(const std::string& users_file,
                       const TokenOptions& options);

// Returns the file of the key that signs tokens.
std::string SigningKeyOf(const std::string& users_file,
                         const std::string& signing_key);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_USER_COMMANDS_H_
