#include "client/cli/user_commands.h"

#include <pwd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/names.h"
#include "base/principals.h"
#include "base/replace_file.h"
#include "client/cli/certificates.h"
#include "client/cli/connection_file.h"
#include "client/cli/files.h"
#include "client/cli/tokens.h"
#include "client/cpp/connection_file.h"
#include "users/users_file.h"

namespace backboned::cli {
namespace {

// Reads what `--expires` says: the first moment that is too late.
absl::StatusOr<absl::Time> ReadExpires(const std::string& text) {
  const absl::StatusOr<absl::Time> time = ParseExpires(text);
  if (!time.ok()) return PrefixMessage("--expires", time.status());
  if (*time > absl::Now()) return time;
  return absl::InvalidArgumentError(absl::StrCat(
      "--expires ", text, " is over; it is today in UTC, or later"));
}

Rights ReadRights(const std::string& word) {
  if (word == NameOf(Rights::kInfer)) return Rights::kInfer;
  return word == NameOf(Rights::kAdmin) ? Rights::kAdmin : Rights::kTrain;
}

absl::Status NoSuchUser(const Users& users, const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [other, user] : users) names.push_back(other);
  return UnknownName(Reason::kInvalidOption, "user", name, names);
}

// Returns an error if another user has the account.
absl::Status CheckAccount(const Users& users, const NewUser& added) {
  const std::string& mine = added.account.empty() ? added.name : added.account;
  if (!added.account.empty() && getpwnam(added.account.c_str()) == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--account ", added.account,
                     ": there is no such account on this machine"));
  }
  for (const auto& [name, user] : users) {
    if (user.account.value_or(name) != mine) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "the account ", mine, " is ", name, "'s; an account is one user's"));
  }
  return absl::OkStatus();
}

// Returns where the front is, and its CA.
absl::StatusOr<Connection> FrontOf(const TokenOptions& options) {
  Connection front;
  if (options.target.empty()) {
    absl::StatusOr<client::ConnectionFile> read =
        client::ReadConnectionFile(options.front + "/connection.yaml");
    if (!read.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("where is the front? --front names the folder of "
                       "`backbonectl front`, or --target its host:port; ",
                       read.status().message()));
    }
    front.target = std::move(read->target);
    front.ca = std::move(read->credentials.ca);
  } else {
    absl::Status valid = CheckTarget("--target", options.target);
    if (!valid.ok()) return valid;
    front.target = options.target;
  }
  if (options.ca_file.empty()) return front;
  absl::StatusOr<std::string> ca = ReadText(options.ca_file);
  if (!ca.ok()) return PrefixMessage("--ca", ca.status());
  absl::Status valid = CheckCas("--ca", *ca);
  if (!valid.ok()) return valid;
  front.ca = *std::move(ca);
  return front;
}

absl::Status WriteConnection(const std::string& path,
                             const Connection& connection) {
  if (path.empty()) {
    std::cout << Format(connection);
    return absl::OkStatus();
  }
  const bool is_there = ReadText(path).ok();
  const auto written = WriteText(path, Format(connection), kPrivate);
  if (!written.ok()) return written.status();
  std::cerr << (is_there ? "replaced " : "wrote ") << path << "\n";
  return absl::OkStatus();
}

std::string FormatNumber(const std::optional<double>& number) {
  return number ? absl::StrCat(*number) : "-";
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

void AddUserAdd(CommandLine& line, CLI::App* user) {
  const auto users = std::make_shared<std::string>(DefaultUsersFile());
  const auto added = std::make_shared<NewUser>();
  CLI::App* const add = line.Add(
      "add", "Lets a user call", [=] { return AddUser(*users, *added); }, user);
  AddUsersFile(add, *users);
  add->add_option("NAME", added->name, "The principal")->required();
  add->add_option("--rights", added->rights, "What the user may do")
      ->check(CLI::IsMember({"infer", "train", "admin"}))
      ->capture_default_str();
  add->add_option("--share", added->share,
                  "Weight of its share of a device; others have 1")
      ->check(CLI::Range(0.001, 1000.0))
      ->type_name("W");
  add->add_option("--quota", added->quota,
                  "Part of each limit that it may use, above 0 and at most 1")
      ->check(IsFraction())
      ->type_name("Q");
  add->add_option("--account", added->account,
                  "The Unix account by which it connects")
      ->type_name("ACCOUNT");
  add->add_option("--expires", added->expires,
                  "The last day, in UTC, on which it may call: 2027-03-31")
      ->type_name("DAY");
  add->add_option("--socket", added->socket,
                  "Where users with an account connect")
      ->capture_default_str()
      ->type_name("unix:/PATH");
}

void AddUserToken(CommandLine& line, CLI::App* user) {
  const auto users = std::make_shared<std::string>(DefaultUsersFile());
  const auto token = std::make_shared<TokenOptions>();
  CLI::App* const command = line.Add(
      "token", "Gives a user a new token, and ends its older ones",
      [=] { return GiveToken(*users, *token); }, user);
  AddUsersFile(command, *users);
  command->add_option("NAME", token->name, "The principal")->required();
  command->add_option("--days", token->days, "Days until the token expires")
      ->check(CLI::Range(1, 3650))
      ->capture_default_str();
  command
      ->add_option("--connection", token->connection,
                   "The connection file to write; else standard output")
      ->type_name("FILE");
  command
      ->add_option("--signing-key", token->signing_key,
                   "The key that signs; else signing-key.pem beside the "
                   "users file")
      ->type_name("FILE");
  command
      ->add_option("--front", token->front,
                   "The folder of `backbonectl front`, which knows the "
                   "front's address and CA")
      ->capture_default_str()
      ->type_name("DIR");
  command->add_option("--target", token->target, "Another address of the front")
      ->type_name("HOST:PORT");
  command
      ->add_option("--ca", token->ca_file,
                   "The certificate of the front's CA, PEM, if machines do "
                   "not know it")
      ->type_name("FILE");
}

void AddUserList(CommandLine& line, CLI::App* user) {
  const auto users = std::make_shared<std::string>(DefaultUsersFile());
  const auto json = std::make_shared<bool>(false);
  CLI::App* const list = line.Add(
      "list", "Prints the users", [=] { return ListUsers(*users, *json); },
      user);
  AddUsersFile(list, *users);
  list->add_flag("--json", *json, "As JSON");
}

void AddUserRemove(CommandLine& line, CLI::App* user) {
  const auto users = std::make_shared<std::string>(DefaultUsersFile());
  const auto removed = std::make_shared<std::string>();
  CLI::App* const remove = line.Add(
      "remove", "Lets a user call no more",
      [=] { return RemoveUser(*users, *removed); }, user);
  AddUsersFile(remove, *users);
  remove->add_option("NAME", *removed, "The principal")->required();
}

}  // namespace

void AddUserCommands(CommandLine& line) {
  CLI::App* const user = line.AddGroup("user", "The users of a server");
  AddUserAdd(line, user);
  AddUserList(line, user);
  AddUserRemove(line, user);
  AddUserToken(line, user);
}

std::string DefaultUsersFile() {
  const char* const named = std::getenv("BACKBONED_USERS");
  return named == nullptr ? "/etc/backboned/users.yaml" : named;
}

void AddUsersFile(CLI::App* command, std::string& users_file) {
  command
      ->add_option("--users", users_file,
                   "The users file, by default that of BACKBONED_USERS")
      ->capture_default_str()
      ->type_name("FILE");
}

std::string SigningKeyOf(const std::string& users_file,
                         const std::string& signing_key) {
  return signing_key.empty() ? Beside(users_file, "signing-key.pem")
                             : signing_key;
}

absl::Status AddUser(const std::string& users_file, const NewUser& added) {
  absl::Status valid = CheckPrincipal(added.name);
  if (!valid.ok()) return valid;
  valid = CheckTarget("--socket", added.socket);
  if (!valid.ok()) return valid;
  User user = {.rights = ReadRights(added.rights),
               .share = added.share,
               .quota = added.quota};
  if (!added.account.empty()) user.account = added.account;
  if (!added.expires.empty()) {
    const absl::StatusOr<absl::Time> expires = ReadExpires(added.expires);
    if (!expires.ok()) return expires.status();
    user.expires = *expires;
  }
  const absl::StatusOr<FolderLock> lock = FolderLock::OfFile(users_file);
  if (!lock.ok()) return lock.status();
  absl::StatusOr<Users> users = ReadUsers(users_file);
  if (absl::IsNotFound(users.status())) users = Users();
  if (!users.ok()) return users.status();
  if (users->count(added.name) > 0) {
    return absl::AlreadyExistsError(
        absl::StrCat("there is a user ", added.name, " already; change it in ",
                     users_file, ", or remove it first"));
  }
  valid = CheckAccount(*users, added);
  if (!valid.ok()) return valid;
  users->emplace(added.name, user);
  absl::Status written = WriteUsers(users_file, *users);
  if (!written.ok()) return written;
  if (user.account || getpwnam(added.name.c_str()) != nullptr) {
    std::cout << Format(Connection{.target = added.socket});
  } else {
    std::cerr << "added " << added.name
              << ", who can have a token: backbonectl "
              << "user token " << added.name << "\n";
  }
  return absl::OkStatus();
}

absl::Status ListUsers(const std::string& users_file, bool json) {
  const absl::StatusOr<Users> users = ReadUsers(users_file);
  if (!users.ok()) return users.status();
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  if (!json) {
    absl::PrintF("%-20s %-6s %7s %7s %-12s %-11s %s\n", "NAME", "RIGHTS",
                 "SHARE", "QUOTA", "ACCOUNT", "TOKEN", "EXPIRES");
  }
  for (const auto& [name, user] : *users) {
    const std::string expires =
        user.expires ? FormatExpires(*user.expires) : "";
    if (!json) {
      absl::PrintF("%-20s %-6s %7s %7s %-12s %-11s %s\n", name,
                   std::string(NameOf(user.rights)), FormatNumber(user.share),
                   FormatNumber(user.quota), user.account.value_or("-"),
                   user.token ? absl::StrCat(*user.token) : "-",
                   expires.empty() ? "-" : expires);
      continue;
    }
    nlohmann::ordered_json entry = {{"name", name},
                                    {"rights", NameOf(user.rights)}};
    if (user.share) entry["share"] = *user.share;
    if (user.quota) entry["quota"] = *user.quota;
    if (user.account) entry["account"] = *user.account;
    if (user.token) entry["token"] = *user.token;
    if (user.expires) entry["expires"] = expires;
    list.push_back(entry);
  }
  if (json) std::cout << list.dump(2) << "\n";
  return absl::OkStatus();
}

absl::Status RemoveUser(const std::string& users_file,
                        const std::string& name) {
  const absl::StatusOr<FolderLock> lock = FolderLock::OfFile(users_file);
  if (!lock.ok()) return lock.status();
  absl::StatusOr<Users> users = ReadUsers(users_file);
  if (!users.ok()) return users.status();
  if (users->erase(name) == 0) return NoSuchUser(*users, name);
  absl::Status written = WriteUsers(users_file, *users);
  if (!written.ok()) return written;
  std::cerr << "removed " << name << "; what " << name
            << " made stays in the server and counts for " << name << ":\n"
            << "list it with `backbonectl ls` and `backbonectl checkpoint "
            << "ls`, delete it with `rm " << name << "/NAME` and `checkpoint "
            << "rm " << name << "/NAME`\n";
  return absl::OkStatus();
}

absl::Status GiveToken(const std::string& users_file,
                       const TokenOptions& options) {
  absl::StatusOr<Connection> connection = FrontOf(options);
  if (!connection.ok()) return connection.status();
  // Before the older tokens end.
  absl::Status may_write = options.connection.empty()
                               ? absl::OkStatus()
                               : CheckWritable(options.connection);
  if (!may_write.ok()) return may_write;
  const absl::StatusOr<FolderLock> lock = FolderLock::OfFile(users_file);
  if (!lock.ok()) return lock.status();
  absl::StatusOr<Users> users = ReadUsers(users_file);
  if (!users.ok()) return users.status();
  const auto found = users->find(options.name);
  if (found == users->end()) return NoSuchUser(*users, options.name);
  User& user = found->second;
  const absl::Time now = absl::Now();
  const absl::Time expires =
      std::min(now + absl::Hours(24) * options.days,
               user.expires.value_or(absl::InfiniteFuture()));
  if (expires <= now) {
    return absl::FailedPreconditionError(absl::StrCat(
        options.name, " may not call any more; change `expires` in ",
        users_file, " first"));
  }
  const absl::StatusOr<Key> key =
      ReadOrMakeKey(SigningKeyOf(users_file, options.signing_key));
  if (!key.ok()) return key.status();
  // A first one above all that were of a user of this name before.
  user.token = user.token ? *user.token + 1 : absl::ToUnixSeconds(now);
  absl::Status written = WriteUsers(users_file, *users);
  if (!written.ok()) return written;
  connection->token = SignToken(*key, {.user = options.name,
                                       .serial = *user.token,
                                       .issued = now,
                                       .expires = expires});
  return WriteConnection(options.connection, *connection);
}

}  // namespace backboned::cli
