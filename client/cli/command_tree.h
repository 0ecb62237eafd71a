// Describes the command line to who prints it: completions, a man page.

#ifndef BACKBONED_CLIENT_CLI_COMMAND_TREE_H_
#define BACKBONED_CLIENT_CLI_COMMAND_TREE_H_

#include <CLI/App.hpp>
#include <functional>
#include <string>
#include <vector>

namespace backboned::cli {

// The values that a shell offers.
enum class Offer { kNothing, kFile, kFolder, kInstance, kChoices };

// An option, or a place for an argument.
struct OptionNode {
  std::vector<std::string> names;  // `-o`, `--output`; of a place: `INSTANCE`.
  std::string help;
  std::string type;  // Of the value; empty: a flag.
  std::vector<std::string> choices;
  std::string default_value;
  Offer offer = Offer::kNothing;
  bool is_required = false;
  bool repeats = false;
  bool is_common = false;  // One of many commands.
};

// A command with those below it.
struct CommandNode {
  std::vector<std::string> path;  // `params`, `get`; empty: the program.
  std::string help;
  std::vector<OptionNode> options;
  std::vector<OptionNode> places;
  std::vector<CommandNode> commands;
};

// Visits a command and those below it.
void Walk(const CommandNode& node,
          const std::function<void(const CommandNode&)>& visit);

// Returns the tree below `app`, without what is hidden.
CommandNode DescribeCommands(const CLI::App& app);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_COMMAND_TREE_H_
