#include "server/process/environment.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/names.h"

namespace backboned {
namespace {

constexpr std::string_view kPrefix = "BACKBONED_";

// Variables of the clients and tests, whose environment may be the server's
// too, and the mark that the server leaves for itself.
constexpr std::string_view kOfOthers[] = {
    "BACKBONED_BIN",  // Clients.
    "BACKBONED_MODE",          "BACKBONED_REQUIRE_REMOTE",
    "BACKBONED_TRANSPORT",     "BACKBONED_SERVER",
    "BACKBONED_CONNECTION",
    "BACKBONED_MAMMOTH",  // Tests.
    "BACKBONED_UPDATE_GOLDEN", "BACKBONED_OMP_WAIT_APPLIED",
};

}  // namespace

std::vector<std::string> UnknownVariables(
    const char* const* environment, std::span<const std::string> options) {
  std::vector<std::string> unknown;
  for (; *environment != nullptr; ++environment) {
    const std::string_view entry(*environment);
    const std::string_view name = entry.substr(0, entry.find('='));
    if (!name.starts_with(kPrefix)) continue;
    if (std::ranges::find(kOfOthers, name) != std::end(kOfOthers)) continue;
    if (std::ranges::find(options, name) != options.end()) continue;
    unknown.push_back(
        absl::StrCat("the environment variable ",
                     absl::string_view(name.data(), name.size()),
                     " is unknown and has no effect; did you mean ",
                     NearestName(name, options), "?"));
  }
  return unknown;
}

}  // namespace backboned
