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
#include "client/cpp/connection_file.h"

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
  if (client::ReadConnectionFile(path).ok()) return absl::OkStatus();
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
