#include "client/cpp/connection_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace backboned::client {
namespace {

constexpr std::string_view kKeys[] = {"target", "ca",    "certificate",
                                      "key",    "token", "token-file"};
constexpr char kAllowed[] =
    "a connection file has target, ca, certificate, key, and token or "
    "token-file";
constexpr char kPem[] = "-----BEGIN";
constexpr absl::Duration kLook = absl::Milliseconds(50);

// A file's values, by their keys.
using Values = std::map<std::string, std::string, std::less<>>;

bool Exists(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

absl::Status Refusal(const std::string& path, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", why));
}

absl::StatusOr<Values> ReadValues(const std::string& path) {
  const auto text = ReadText("the connection file", path);
  if (!text.ok()) return text.status();
  Values values;
  try {
    const YAML::Node root = YAML::Load(*text);
    if (!root.IsMap()) {
      return Refusal(path, absl::StrCat("is no map of keys; ", kAllowed));
    }
    for (const auto& entry : root) {
      const std::string key =
          entry.first.IsScalar() ? entry.first.Scalar() : "";
      if (std::ranges::find(kKeys, key) == std::end(kKeys)) {
        return Refusal(path,
                       absl::StrCat("there is no key '", key, "'; ", kAllowed));
      }
      if (!entry.second.IsScalar() || entry.second.Scalar().empty()) {
        return Refusal(path, absl::StrCat(key, " is no text"));
      }
      values[key] = entry.second.Scalar();
    }
  } catch (const YAML::Exception& error) {
    return Refusal(path, absl::StrCat("is no YAML: ", error.what()));
  }
  return values;
}

// Returns the PEM that a value is, or whose path it is.
absl::StatusOr<std::string> Pem(const std::filesystem::path& folder,
                                const std::string& key, const Values& values) {
  const auto found = values.find(key);
  if (found == values.end() || absl::StrContains(found->second, kPem)) {
    return found == values.end() ? "" : found->second;
  }
  return ReadText(key, folder / found->second);
}

}  // namespace

absl::StatusOr<ConnectionFile> ReadConnectionFile(const std::string& path,
                                                  absl::Duration wait) {
  const absl::Time end = absl::Now() + wait;
  while (!Exists(path)) {
    if (absl::Now() >= end) {
      const bool waited = wait > absl::ZeroDuration();
      return absl::UnavailableError(absl::StrCat(
          "there is no connection file ", path, waited ? "; waited " : "",
          waited ? absl::FormatDuration(wait) : ""));
    }
    absl::SleepFor(kLook);
  }
  const absl::StatusOr<Values> values = ReadValues(path);
  if (!values.ok()) return values.status();
  if (!values->contains("target")) {
    return Refusal(path, absl::StrCat("there is no target; ", kAllowed));
  }
  if (values->contains("token") && values->contains("token-file")) {
    return Refusal(path, "there are a token and a token-file; one is allowed");
  }
  ConnectionFile read = {.target = values->at("target"), .credentials = {}};
  const std::filesystem::path folder =
      std::filesystem::path(path).parent_path();
  for (const auto& [key, place] :
       {std::pair("ca", &read.credentials.ca),
        std::pair("certificate", &read.credentials.certificate),
        std::pair("key", &read.credentials.key)}) {
    absl::StatusOr<std::string> pem = Pem(folder, key, *values);
    if (!pem.ok()) return Refusal(path, std::string(pem.status().message()));
    *place = *std::move(pem);
  }
  if (values->contains("token")) {
    read.credentials.token = FixedToken(values->at("token"));
  } else if (values->contains("token-file")) {
    read.credentials.token = TokenFile(folder / values->at("token-file"));
  }
  const absl::Status checked = CheckCredentials(read.credentials);
  if (!checked.ok()) return Refusal(path, std::string(checked.message()));
  return read;
}

}  // namespace backboned::client
