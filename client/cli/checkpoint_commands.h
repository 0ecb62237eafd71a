// Saves, loads, lists and deletes checkpoints.

#ifndef BACKBONED_CLIENT_CLI_CHECKPOINT_COMMANDS_H_
#define BACKBONED_CLIENT_CLI_CHECKPOINT_COMMANDS_H_

#include "client/cli/command_line.h"

namespace backboned::cli {

// Adds `checkpoint` and its commands.
void AddCheckpointCommands(CommandLine& line);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_CHECKPOINT_COMMANDS_H_
