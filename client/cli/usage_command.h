// Prints who has used a server, and how much.

#ifndef BACKBONED_CLIENT_CLI_USAGE_COMMAND_H_
#define BACKBONED_CLIENT_CLI_USAGE_COMMAND_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/cli/command_line.h"

namespace backboned::cli {

// Adds the command `usage`.
void AddUsageCommand(CommandLine& line);

// Returns the time that `text` means at `now`: `30d` or `12h` ago, or a day or
// an hour in UTC, `2027-03-31` or `2027-03-31T14:00`. kInvalidArgument names
// `option`.
absl::StatusOr<absl::Time> ReadTime(const std::string& option,
                                    const std::string& text, absl::Time now);

// Returns operations for people: `512`, `1.5 G`.
std::string FormatFlops(double flops);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_USAGE_COMMAND_H_
