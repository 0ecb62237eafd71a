#include "client/cli/command_tree.h"

#include <cstddef>
#include <utility>

#include "absl/strings/str_split.h"
#include "client/cli/server_options.h"

namespace backboned::cli {
namespace {

// Returns the words of `{a,b}` in a type; CLI11 adds them there.
std::vector<std::string> ChoicesOf(const std::string& type) {
  const size_t begin = type.find('{');
  const size_t end = type.find('}');
  if (begin == std::string::npos || end == std::string::npos) return {};
  return absl::StrSplit(type.substr(begin + 1, end - begin - 1), ',');
}

Offer OfferOf(const OptionNode& option, const std::string& kind) {
  if (!option.choices.empty()) return Offer::kChoices;
  if (kind == "FILE") return Offer::kFile;
  if (kind == "DIR") return Offer::kFolder;
  if (kind == "INSTANCE") return Offer::kInstance;
  return Offer::kNothing;
}

OptionNode DescribeOption(const CLI::Option& option) {
  OptionNode node;
  node.help = option.get_description();
  node.is_required = option.get_required();
  node.default_value = option.get_default_str();
  node.is_common = option.get_group() == kServerGroup;
  const std::string type = option.get_type_name();
  node.choices = ChoicesOf(type);
  node.repeats = option.get_items_expected_max() > 1;
  if (option.get_positional()) {
    node.names = {option.get_name(true)};
    node.type = node.names[0];
  } else {
    for (const auto& name : option.get_snames())
      node.names.push_back("-" + name);
    for (const auto& name : option.get_lnames()) {
      node.names.push_back("--" + name);
    }
    if (option.get_items_expected_max() > 0) {
      node.type = type.substr(0, type.find(':'));  // Before CLI11's checks.
    }
  }
  node.offer = OfferOf(node, node.type);
  return node;
}

CommandNode DescribeCommand(const CLI::App& app,
                            std::vector<std::string> path) {
  CommandNode node;
  node.path = std::move(path);
  node.help = app.get_description();
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_group().empty()) continue;
    (option->get_positional() ? node.places : node.options)
        .push_back(DescribeOption(*option));
  }
  const auto all = [](const CLI::App*) { return true; };
  for (const CLI::App* command : app.get_subcommands(all)) {
    if (command->get_group().empty()) continue;
    std::vector<std::string> below = node.path;
    below.push_back(command->get_name());
    node.commands.push_back(DescribeCommand(*command, std::move(below)));
  }
  return node;
}

}  // namespace

void Walk(const CommandNode& node,
          const std::function<void(const CommandNode&)>& visit) {
  visit(node);
  for (const CommandNode& command : node.commands) Walk(command, visit);
}

CommandNode DescribeCommands(const CLI::App& app) {
  return DescribeCommand(app, {});
}

}  // namespace backboned::cli
