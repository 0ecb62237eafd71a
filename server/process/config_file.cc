#include "server/process/config_file.h"

#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/errors.h"
#include "base/names.h"

namespace backboned {
namespace {

[[noreturn]] void Refuse(const YAML::Mark& mark, const std::string& message) {
  throw CLI::ParseError(
      absl::StrCat("--config: line ", mark.line + 1, ": ", message),
      CLI::ExitCodes::ConfigError);
}

// Returns the text of a value that is one.
std::string ScalarOf(const std::string& name, const YAML::Node& node) {
  if (node.IsScalar()) return node.Scalar();
  Refuse(node.Mark(), absl::StrCat(name, ": a value is missing here"));
}

std::vector<std::string> ValuesOf(const std::string& name,
                                  const YAML::Node& node) {
  std::vector<std::string> values;
  if (node.IsSequence()) {
    for (const YAML::Node& item : node) values.push_back(ScalarOf(name, item));
  } else if (node.IsMap()) {
    std::set<std::string> keys;
    for (const auto& item : node) {
      if (!keys.insert(ScalarOf(name, item.first)).second) {
        Refuse(item.first.Mark(), absl::StrCat(name, ": ", item.first.Scalar(),
                                               " is there twice"));
      }
      values.push_back(absl::StrCat(ScalarOf(name, item.first), "=",
                                    ScalarOf(name, item.second)));
    }
  } else {
    values.push_back(ScalarOf(name, node));
  }
  return values;
}

YAML::Node Parse(std::istream& input) {
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(input);
    if (documents.empty()) return YAML::Node();
    if (documents.size() == 1) return documents.front();
    Refuse(documents[1].Mark(), "this is a second document: one is read");
  } catch (const YAML::ParserException& error) {
    Refuse(error.mark, error.msg);
  }
}

bool IsInEnvironment(const CLI::Option& option) {
  const std::string variable = option.get_envname();
  if (variable.empty()) return false;
  const char* const value = std::getenv(variable.c_str());
  return value != nullptr && *value != '\0';
}

}  // namespace

std::vector<CLI::ConfigItem> ConfigFile::from_config(
    std::istream& input) const {
  const YAML::Node root = Parse(input);
  std::vector<CLI::ConfigItem> found;
  if (root.IsNull()) return found;
  if (!root.IsMap()) {
    Refuse(root.Mark(), "a configuration has lines OPTION: VALUE");
  }
  std::vector<std::string> names;
  for (const CLI::Option* option : app_.get_options()) {
    if (option->get_configurable() && !option->get_lnames().empty()) {
      names.push_back(option->get_lnames().front());
    }
  }
  const std::set<std::string> known(names.begin(), names.end());
  std::set<std::string> given;
  for (const auto& entry : root) {
    const std::string name = ScalarOf("the option's name", entry.first);
    if (!known.contains(name)) {
      Refuse(entry.first.Mark(),
             absl::StrCat("no option ", Quote(name), "; did you mean ",
                          NearestName(name, names), "?"));
    }
    if (!given.insert(name).second) {
      Refuse(entry.first.Mark(), absl::StrCat(name, " is there twice"));
    }
    CLI::ConfigItem item;
    item.name = name;
    item.inputs = ValuesOf(name, entry.second);
    const CLI::Option& option = *app_.get_option("--" + name);
    if (option.count() > 0 || IsInEnvironment(option) || item.inputs.empty()) {
      continue;
    }
    lines_[name] = entry.first.Mark().line + 1;
    found.push_back(std::move(item));
  }
  return found;
}

std::string ConfigFile::Explain(const std::string& message) const {
  for (const auto& [name, line] : lines_) {
    const std::string option = absl::StrCat("--", name);
    if (absl::StartsWith(message, absl::StrCat(option, ":")) ||
        absl::StartsWith(message, absl::StrCat(name, ":")) ||
        absl::StrContains(message, absl::StrCat(option, " = "))) {
      return absl::StrCat("--config: line ", line, ": ",
                          absl::StrReplaceAll(message, {{option, name}}));
    }
  }
  return message;
}

std::string ConfigFile::YamlOf(
    const std::map<std::string, std::vector<std::string>>& texts) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  for (const auto& [key, values] : texts) {
    out << YAML::Key << key << YAML::Value;
    if (values.size() == 1) {
      out << values.front();
    } else {
      out << YAML::Flow << values;
    }
  }
  out << YAML::EndMap;
  return out.c_str();
}

}  // namespace backboned
