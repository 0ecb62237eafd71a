// Shows what a server does, second by second.

#ifndef BACKBONED_CLIENT_CLI_TOP_COMMAND_H_
#define BACKBONED_CLIENT_CLI_TOP_COMMAND_H_

#include "client/cli/command_line.h"

namespace backboned::cli {

// Adds `top`.
void AddTopCommand(CommandLine& line);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_TOP_COMMAND_H_
