#include "client/cli/connection_file.h"

#include <sys/stat.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "client/cli/files.h"

namespace backboned::cli {

std::string Format(const Connection& connection) {
  YAML::Emitter out;
  out << YAML::BeginMap << YAML::Key << "target" << YAML::Value
      << connection.target;
  if (!connection.ca.empty()) {
    out << YAML::Key << "ca" << YAML::Value << YAML::Literal << connection.ca;
  }
  if (!connection.token.empty()) {
    out << YAML::Key << "token" << YAML::Value << connection.token;
  }
  out << YAML::EndMap;
  return absl::StrCat(out.c_str(), "\n");
}

absl::StatusOr<Connection> ReadConnection(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadText(path);
  if (!text.ok()) return text.status();
  try {
    const YAML::Node document = YAML::Load(*text);
    if (document.IsMap() && document["target"]) {
      const std::string ca = document["ca"].as<std::string>("");
      if (!ca.empty() && !absl::StrContains(ca, "-----BEGIN")) {
        return absl::InvalidArgumentError(absl::StrCat(
            path, ": ca is no certificate of PEM, which others need in full"));
      }
      return Connection{.target = document["target"].as<std::string>(),
                        .ca = ca,
                        .token = document["token"].as<std::string>("")};
    }
  } catch (const YAML::Exception&) {
    // As if there were no target.
  }
  return absl::InvalidArgumentError(absl::StrCat(
      path, " is no connection file, which is YAML with a key `target`"));
}

absl::Status CheckWritable(const std::string& path) {
  const std::string folder = Beside(path, ".");
  if (access(folder.c_str(), W_OK) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot write ", path, ": ", std::strerror(errno)));
  }
  struct stat file = {};
  if (stat(path.c_str(), &file) != 0) return absl::OkStatus();
  if (geteuid() != 0 && file.st_uid != geteuid()) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " belongs to another account; name a file of your own"));
  }
  if (ReadConnection(path).ok()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, " exists and is no connection file; name another"));
}

absl::Status CheckTarget(const std::string& option, const std::string& target) {
  const size_t colon = target.rfind(':');
  int port = 0;
  if (absl::StartsWith(target, "unix:/") ||
      (colon != std::string::npos && colon > 0 &&
       absl::SimpleAtoi(target.substr(colon + 1), &port) && port > 0 &&
       port < 65'536)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      option, " ", Quote(target), " is neither host:port nor unix:/path"));
}

}  // namespace backboned::cli
