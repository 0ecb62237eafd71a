#include "users/users_file.h"

#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/civil_time.h"
#include "base/errors.h"
#include "base/names.h"
#include "base/principals.h"
#include "base/replace_file.h"

namespace backboned {
namespace {

// Of a file that is read.
constexpr uintmax_t kMaxBytes = 1 << 20;

const std::vector<std::string>& Fields() {
  static const auto* names = new std::vector<std::string>(
      {"account", "expires", "quota", "rights", "share", "token"});
  return *names;
}

// Returns an error at a node's line, counted from 1.
absl::Status At(const YAML::Mark& mark, absl::string_view message) {
  return InvalidOption(
      mark.is_null() ? std::string(message)
                     : absl::StrCat("line ", mark.line + 1, ": ", message));
}

absl::Status ReadRights(const YAML::Node& node, User& user) {
  const std::string text = node.as<std::string>();
  for (const Rights rights : {Rights::kInfer, Rights::kTrain, Rights::kAdmin}) {
    if (text != NameOf(rights)) continue;
    user.rights = rights;
    return absl::OkStatus();
  }
  return InvalidOption(
      absl::StrCat("rights ", Quote(text), ": they are infer, train or admin"));
}

absl::Status ReadShare(const YAML::Node& node, User& user) {
  const double share = node.as<double>();
  user.share = share;
  if (share >= 0.001 && share <= 1000) return absl::OkStatus();
  return InvalidOption("share: it is a number from 0.001 to 1000");
}

absl::Status ReadQuota(const YAML::Node& node, User& user) {
  const double quota = node.as<double>();
  user.quota = quota;
  if (quota > 0 && quota <= 1) return absl::OkStatus();
  return InvalidOption("quota: it is a number above 0 and at most 1");
}

absl::Status ReadAccount(const YAML::Node& node, User& user) {
  user.account = node.as<std::string>();
  if (!user.account->empty()) return absl::OkStatus();
  return InvalidOption("account: it is the name of an account");
}

absl::Status ReadToken(const YAML::Node& node, User& user) {
  const auto serial = node.as<int64_t>();
  user.token = serial;
  if (serial > 0) return absl::OkStatus();
  return InvalidOption("token: it is a whole number above 0");
}

absl::Status ReadExpires(const YAML::Node& node, User& user) {
  const absl::StatusOr<absl::Time> expires =
      ParseExpires(node.as<std::string>());
  if (!expires.ok()) return PrefixMessage("expires", expires.status());
  user.expires = *expires;
  return absl::OkStatus();
}

absl::Status ReadField(const std::string& name, const YAML::Node& node,
                       User& user) {
  if (name == "rights") return ReadRights(node, user);
  if (name == "share") return ReadShare(node, user);
  if (name == "quota") return ReadQuota(node, user);
  if (name == "account") return ReadAccount(node, user);
  if (name == "token") return ReadToken(node, user);
  if (name == "expires") return ReadExpires(node, user);
  return InvalidOption(absl::StrCat("there is no ", Quote(name),
                                    "; did you mean ",
                                    NearestName(name, Fields()), "?"));
}

// Reads one user, whose fields may be left out together.
absl::StatusOr<User> ReadUser(const YAML::Node& node) {
  User user;
  if (node.IsNull()) return user;
  if (!node.IsMap()) {
    return At(node.Mark(), absl::StrCat("a user has fields, which are ",
                                        absl::StrJoin(Fields(), ", ")));
  }
  std::set<std::string> given;
  for (const auto& field : node) {
    const std::string name = field.first.as<std::string>();
    absl::Status read = absl::OkStatus();
    try {
      read = ReadField(name, field.second, user);
    } catch (const YAML::BadConversion&) {
      read = InvalidOption(absl::StrCat(name, ": this is none"));
    }
    if (read.ok() && !given.insert(name).second) {
      read = InvalidOption(absl::StrCat(name, " is there twice"));
    }
    if (!read.ok()) return At(field.first.Mark(), read.message());
  }
  return user;
}

// Returns kInvalidArgument if two users have one account: an account is one
// user's.
absl::Status CheckAccounts(const Users& users) {
  std::map<std::string, std::string> owners;
  for (const auto& [name, user] : users) {
    const auto [owner, is_new] =
        owners.emplace(user.account.value_or(name), name);
    if (is_new) continue;
    return InvalidOption(absl::StrCat("account ", Quote(owner->first), " is ",
                                      owner->second, "'s and ", name, "'s"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Users> ReadDocument(const YAML::Node& document) {
  Users users;
  if (!document.IsMap() || document.size() != 1 || !document["users"]) {
    return At(document.Mark(), "a users file has one key, `users`");
  }
  const YAML::Node& list = document["users"];
  if (list.IsNull()) return users;
  if (!list.IsMap()) return At(list.Mark(), "users: it has names as keys");
  for (const auto& entry : list) {
    const YAML::Mark mark = entry.first.Mark();
    if (!entry.first.IsScalar()) return At(mark, "a user's name is text");
    const std::string name = entry.first.as<std::string>();
    absl::Status valid = CheckPrincipal(name);
    if (!valid.ok()) return At(mark, valid.message());
    absl::StatusOr<User> user = ReadUser(entry.second);
    if (!user.ok()) {
      return InvalidOption(absl::StrCat(name, ": ", user.status().message()));
    }
    if (!users.emplace(name, *std::move(user)).second) {
      return At(mark, absl::StrCat(name, " is there twice"));
    }
  }
  absl::Status apart = CheckAccounts(users);
  if (!apart.ok()) return apart;
  return users;
}

std::string Format(const Users& users) {
  YAML::Emitter out;
  out << YAML::BeginMap << YAML::Key << "users" << YAML::Value
      << YAML::BeginMap;
  for (const auto& [name, user] : users) {
    out << YAML::Key << name << YAML::Value << YAML::Flow << YAML::BeginMap;
    const auto add = [&out](const char* field, const auto& value) {
      out << YAML::Key << field << YAML::Value << value;
    };
    add("rights", std::string(NameOf(user.rights)));
    if (user.share) add("share", *user.share);
    if (user.quota) add("quota", *user.quota);
    if (user.account) add("account", *user.account);
    if (user.token) add("token", *user.token);
    if (user.expires) {
      add("expires", FormatExpires(*user.expires));
    }
    out << YAML::EndMap;
  }
  out << YAML::EndMap << YAML::EndMap;
  return absl::StrCat(out.c_str(), "\n");
}

}  // namespace

std::string_view NameOf(Rights rights) {
  switch (rights) {
    case Rights::kInfer:
      return "infer";
    case Rights::kTrain:
      return "train";
    default:
      return "admin";
  }
}

absl::StatusOr<absl::Time> ParseExpires(const std::string& text) {
  absl::CivilDay day;
  if (absl::ParseCivilTime(text, &day)) {
    return absl::FromCivil(day + 1, absl::UTCTimeZone());
  }
  absl::Time time;
  if (absl::ParseTime(absl::RFC3339_sec, text, &time, nullptr)) return time;
  return InvalidOption(absl::StrCat(Quote(text),
                                    " is no day, such as 2027-03-31, and no "
                                    "time, such as 2027-03-31T12:00:00Z"));
}

std::string FormatExpires(absl::Time expires) {
  const absl::TimeZone utc = absl::UTCTimeZone();
  const absl::CivilSecond second = absl::ToCivilSecond(expires, utc);
  const absl::CivilDay day(second);
  return absl::CivilSecond(day) == second
             ? absl::FormatCivilTime(day - 1)
             : absl::FormatTime(absl::RFC3339_sec, expires, utc);
}

absl::StatusOr<Users> ParseUsers(const std::string& text) {
  try {
    return ReadDocument(YAML::Load(text));
  } catch (const YAML::Exception& error) {
    return At(error.mark, error.msg);
  }
}

absl::StatusOr<Users> ReadUsers(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status =
      std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat(path, ": there is no such file"));
  }
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": it cannot be read: ", error.message()));
  }
  if (!std::filesystem::is_regular_file(status) ||
      std::filesystem::file_size(path, error) > kMaxBytes) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": it is no file of at most 1 MiB"));
  }
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  if (!file) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": it cannot be read: ", std::strerror(errno)));
  }
  absl::StatusOr<Users> users = ParseUsers(text);
  if (users.ok()) return users;
  return PrefixMessage(path, users.status());
}

absl::Status WriteUsers(const std::string& path, const Users& users) {
  return ReplaceFile(path, Format(users));
}

}  // namespace backboned
