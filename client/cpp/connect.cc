#include "client/cpp/connect.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/connection_file.h"

namespace backboned::client {

absl::StatusOr<Client> ConnectByFile(const std::string& path, Options options,
                                     absl::Duration wait) {
  absl::StatusOr<ConnectionFile> file = ReadConnectionFile(path, wait);
  if (!file.ok()) return file.status();
  options.credentials = std::move(file->credentials);
  return Client::Connect(file->target, std::move(options));
}

absl::StatusOr<Client> ConnectByDefault(Options options) {
  const auto variable = [](const char* name) -> std::string {
    const char* const value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  const std::string target = variable("BACKBONED_SERVER");
  if (target.ends_with(".yaml") || target.ends_with(".yml")) {
    return ConnectByFile(target, std::move(options));
  }
  if (!target.empty()) return Client::Connect(target, std::move(options));
  const std::string named = variable("BACKBONED_CONNECTION");
  if (!named.empty()) return ConnectByFile(named, std::move(options));
  std::filesystem::path folder = variable("XDG_CONFIG_HOME");
  if (folder.empty()) {
    folder = std::filesystem::path(variable("HOME")) / ".config";
  }
  std::error_code ignored;
  const std::filesystem::path file = folder / "backboned/connection.yaml";
  if (file.is_absolute() && std::filesystem::exists(file, ignored)) {
    return ConnectByFile(file, std::move(options));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no server is named: set BACKBONED_SERVER or "
                   "BACKBONED_CONNECTION, or write ",
                   file.string()));
}

}  // namespace backboned::client
