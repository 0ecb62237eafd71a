// Makes instances: new ones, and clones.

#ifndef BACKBONED_CLIENT_CLI_CREATE_COMMANDS_H_
#define BACKBONED_CLIENT_CLI_CREATE_COMMANDS_H_

#include "client/cli/command_line.h"

namespace backboned::cli {

// Adds `create` and `clone`.
void AddCreateCommands(CommandLine& line);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_CREATE_COMMANDS_H_
