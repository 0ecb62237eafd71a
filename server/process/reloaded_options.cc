#include "server/process/reloaded_options.h"

#include <spdlog/spdlog.h>

#include <set>
#include <sstream>
#include <utility>
#include <variant>

#include "absl/strings/str_join.h"

namespace backboned {

std::optional<Options> ReloadedOptions::Reload() {
  static const auto* const changeable =
      new std::set<std::string>({"log-level", "save-interval", "save-versions",
                                 "idle-ttl", "checkpoint-ttl"});
  std::ostringstream errors;
  std::variant<Options, int> parsed = ParseOptions(argc_, argv_, errors);
  Options* const options = std::get_if<Options>(&parsed);
  if (options == nullptr) {
    spdlog::error("the configuration stays as it was: {}", errors.str());
    return std::nullopt;
  }
  for (const auto& [key, text] : options->texts) {
    std::vector<std::string>& known = texts_[key];
    if (known == text) continue;
    const std::string now = absl::StrJoin(text, ", ");
    if (changeable->contains(key)) {
      spdlog::info("{} is now {}", key, now);
      known = text;
    } else {
      spdlog::warn("{} is {} from the next start on", key, now);
    }
  }
  return std::move(*options);
}

}  // namespace backboned
