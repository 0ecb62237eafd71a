// Prints the man page of backbonectl.

#ifndef BACKBONED_CLIENT_CLI_MAN_PAGE_H_
#define BACKBONED_CLIENT_CLI_MAN_PAGE_H_

#include <string>

#include "client/cli/command_tree.h"

namespace backboned::cli {

// Returns the page in roff, of section 1.
std::string ManPage(const CommandNode& program);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_MAN_PAGE_H_
