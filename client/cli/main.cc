// Runs backbonectl, the program of who runs a server: users, tokens, a front.

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/cli/front_command.h"
#include "client/cli/user_commands.h"

namespace {

using backboned::cli::FrontOptions;
using backboned::cli::NewUser;
using backboned::cli::TokenOptions;

// Exit statuses.
constexpr int kDone = 0;
constexpr int kMistake = 2;

// All that a command line can say.
struct Options {
  std::string users = "/etc/backboned/users.yaml";
  NewUser added;
  TokenOptions token;
  FrontOptions front;
  std::string removed;
  bool json = false;
};

int Refuse(const std::string& message) {
  std::cerr << "backbonectl: " << message << "\n";
  return kMistake;
}

// Returns the command that was typed, without its options.
std::string CommandOf(const CLI::App& app) {
  std::string command = app.get_name();
  for (const CLI::App* part : app.get_subcommands()) {
    absl::StrAppend(&command, " ", CommandOf(*part));
  }
  return command;
}

// Checks a part of something.
CLI::Validator IsFraction() {
  const auto check = [](const std::string& text) {
    double part = 0;
    return absl::SimpleAtod(text, &part) && part > 0 && part <= 1
               ? std::string()
               : absl::StrCat(text, " is not above 0 and at most 1");
  };
  return CLI::Validator(check, "");
}

// Adds a command that does `run`, once all options are read.
CLI::App* AddCommand(CLI::App* parent, const std::string& name,
                     const std::string& help, Options& options,
                     absl::Status& status, std::function<absl::Status()> run) {
  CLI::App* const command = parent->add_subcommand(name, help);
  command
      ->add_option("--users", options.users,
                   "The users file, by default that of BACKBONED_USERS")
      ->capture_default_str()
      ->type_name("FILE");
  command->callback([&status, run] { status = run(); });
  return command;
}

void AddUserAdd(CLI::App* user, Options& options, absl::Status& status) {
  NewUser& added = options.added;
  CLI::App* const add =
      AddCommand(user, "add", "Lets a user call", options, status,
                 [&options] { return AddUser(options.users, options.added); });
  add->add_option("NAME", added.name, "The principal")->required();
  add->add_option("--rights", added.rights, "What the user may do")
      ->check(CLI::IsMember({"infer", "train", "admin"}))
      ->capture_default_str();
  add->add_option("--share", added.share,
                  "Weight of its share of a device; others have 1")
      ->check(CLI::Range(0.001, 1000.0))
      ->type_name("W");
  add->add_option("--quota", added.quota,
                  "Part of each limit that it may use, above 0 and at most 1")
      ->check(IsFraction())
      ->type_name("Q");
  add->add_option("--account", added.account,
                  "The Unix account by which it connects")
      ->type_name("ACCOUNT");
  add->add_option("--expires", added.expires,
                  "The last day, in UTC, on which it may call: 2027-03-31")
      ->type_name("DAY");
  add->add_option("--socket", added.socket,
                  "Where users with an account connect")
      ->capture_default_str()
      ->type_name("unix:/PATH");
}

void AddUserToken(CLI::App* user, Options& options, absl::Status& status) {
  TokenOptions& token = options.token;
  CLI::App* const command = AddCommand(
      user, "token", "Gives a user a new token, and ends its older ones",
      options, status,
      [&options] { return GiveToken(options.users, options.token); });
  command->add_option("NAME", token.name, "The principal")->required();
  command->add_option("--days", token.days, "Days until the token expires")
      ->check(CLI::Range(1, 3650))
      ->capture_default_str();
  command
      ->add_option("--connection", token.connection,
                   "The connection file to write; else standard output")
      ->type_name("FILE");
  command
      ->add_option("--signing-key", token.signing_key,
                   "The key that signs; else signing-key.pem beside the "
                   "users file")
      ->type_name("FILE");
  command
      ->add_option("--front", token.front,
                   "The folder of `backbonectl front`, which knows the "
                   "front's address and CA")
      ->capture_default_str()
      ->type_name("DIR");
  command->add_option("--target", token.target, "Another address of the front")
      ->type_name("HOST:PORT");
  command
      ->add_option("--ca", token.ca_file,
                   "The certificate of the front's CA, PEM, if machines do "
                   "not know it")
      ->type_name("FILE");
}

void AddUsers(CLI::App& app, Options& options, absl::Status& status) {
  CLI::App* const user = app.add_subcommand("user", "The users of a server");
  user->require_subcommand(1);
  AddUserAdd(user, options, status);
  CLI::App* const list =
      AddCommand(user, "list", "Prints the users", options, status, [&options] {
        return backboned::cli::ListUsers(options.users, options.json);
      });
  list->add_flag("--json", options.json, "As JSON");
  CLI::App* const remove = AddCommand(
      user, "remove", "Lets a user call no more", options, status, [&options] {
        return backboned::cli::RemoveUser(options.users, options.removed);
      });
  remove->add_option("NAME", options.removed, "The principal")->required();
  AddUserToken(user, options, status);
}

void AddFront(CLI::App& app, Options& options, absl::Status& status) {
  FrontOptions& front = options.front;
  CLI::App* const command = AddCommand(
      &app, "front",
      "Writes the configuration of an Envoy that stands before a server, asks "
      "for tokens or certificates, and says who calls",
      options, status, [&options] {
        options.front.signing_key = backboned::cli::SigningKeyOf(
            options.users, options.front.signing_key);
        return WriteFront(options.front);
      });
  const auto add = [command](const std::string& name, std::string& value,
                             const std::string& type, const std::string& help) {
    return command->add_option(name, value, help)
        ->capture_default_str()
        ->type_name(type);
  };
  add("--out", front.out, "DIR", "The folder to write");
  add("--address", front.address, "IP:PORT", "Where the front listens")
      ->required();
  add("--server", front.server, "unix:/PATH", "The socket of the server");
  add("--admin", front.admin, "unix:/PATH",
      "The socket of Envoy's admin interface; else admin.sock in --out");
  add("--name", front.name, "NAME",
      "DNS name or IP address by which clients reach the front; else that of "
      "--address");
  add("--certificate", front.certificate, "FILE",
      "The front's certificate and its chain, PEM; else one of a CA of its "
      "own");
  add("--key", front.key, "FILE", "The certificate's key, PEM");
  add("--client-ca", front.client_ca, "FILE",
      "CAs, PEM, whose certificates let clients in, by their one DNS name");
  add("--crl", front.crl, "FILE", "Those of them that are revoked, PEM");
  add("--signing-key", front.signing_key, "FILE",
      "The key that signs tokens; else signing-key.pem beside the users file");
  command
      ->add_option("--max-connections", front.max_connections,
                   "Most connections of clients at once")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_flag("--json", front.json,
                    "Takes unary methods as JSON, too: POST "
                    "/backboned.v1.BackboneService/Extract");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  // CLI11 would let the variable of one command have the last word in all.
  if (const char* users = std::getenv("BACKBONED_USERS")) options.users = users;
  absl::Status status;
  CLI::App app("Runs a Backboned server's users and its front.", "backbonectl");
  app.set_version_flag("--version",
                       absl::StrCat("backbonectl ", BACKBONED_VERSION));
  app.require_subcommand(1);
  AddUsers(app, options, status);
  AddFront(app, options, status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return Refuse(
        absl::StrCat(error.what(), "; see ", CommandOf(app), " --help"));
  }
  if (!status.ok()) return Refuse(std::string(status.message()));
  if (!std::cout.flush() || std::fflush(stdout) != 0) {
    return Refuse("standard output cannot be written");
  }
  return kDone;
}
