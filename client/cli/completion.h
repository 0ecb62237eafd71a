// Prints scripts by which shells complete backbonectl's command line.

#ifndef BACKBONED_CLIENT_CLI_COMPLETION_H_
#define BACKBONED_CLIENT_CLI_COMPLETION_H_

#include <string>

#include "client/cli/command_line.h"
#include "client/cli/command_tree.h"

namespace backboned::cli {

// Adds `completion`, and `man`, which is hidden.
void AddShellCommands(CommandLine& line);

// Returns a text between single quotes, as bash and zsh read it.
std::string ShellText(const std::string& text);

// Return the scripts of a tree.
std::string BashCompletion(const CommandNode& program);
std::string ZshCompletion(const CommandNode& program);
std::string FishCompletion(const CommandNode& program);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_COMPLETION_H_
