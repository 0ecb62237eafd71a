// Runs backbonectl, the command line for the instances, the users and the front
// of a server.

#include <cstdlib>

#include "client/cli/checkpoint_commands.h"
#include "client/cli/command_line.h"
#include "client/cli/completion.h"
#include "client/cli/create_commands.h"
#include "client/cli/front_command.h"
#include "client/cli/health_command.h"
#include "client/cli/instance_commands.h"
#include "client/cli/interrupt.h"
#include "client/cli/params_commands.h"
#include "client/cli/top_command.h"
#include "client/cli/usage_command.h"
#include "client/cli/user_commands.h"

int main(int argc, char** argv) {
  // gRPC would write lines of its own beside our errors.
  setenv("GRPC_VERBOSITY", "NONE", /*replace=*/0);
  backboned::cli::HandleInterrupts();
  backboned::cli::CommandLine line;
  AddInstanceCommands(line);
  AddCreateCommands(line);
  AddParamsCommands(line);
  AddCheckpointCommands(line);
  AddHealthCommand(line);
  AddTopCommand(line);
  AddUserCommands(line);
  AddFrontCommand(line);
  AddUsageCommand(line);
  AddShellCommands(line);
  // Not by exit, which takes from gRPC's threads what they still use.
  std::_Exit(line.Run(argc, argv));
}
