// Asks whether a server, or an instance, serves.

#ifndef BACKBONED_CLIENT_CLI_HEALTH_COMMAND_H_
#define BACKBONED_CLIENT_CLI_HEALTH_COMMAND_H_

#include "client/cli/command_line.h"

namespace backboned::cli {

// Adds `health`.
void AddHealthCommand(CommandLine& line);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_HEALTH_COMMAND_H_
