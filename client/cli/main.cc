// Runs backbonectl, the command line for the instances, the users and the front
// of a server.

#include "client/cli/command_line.h"
#include "client/cli/front_command.h"
#include "client/cli/usage_command.h"
#include "client/cli/user_commands.h"

int main(int argc, char** argv) {
  backboned::cli::CommandLine line;
  AddUserCommands(line);
  AddFrontCommand(line);
  AddUsageCommand(line);
  return line.Run(argc, argv);
}
