// Moves parameters between instances and files.

#ifndef BACKBONED_CLIENT_CLI_PARAMS_COMMANDS_H_
#define BACKBONED_CLIENT_CLI_PARAMS_COMMANDS_H_

#include "client/cli/command_line.h"

namespace backboned::cli {

// Adds `params` and its commands.
void AddParamsCommands(CommandLine& line);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_PARAMS_COMMANDS_H_
