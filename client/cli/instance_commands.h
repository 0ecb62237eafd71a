// Lists, shows and deletes instances.

#ifndef BACKBONED_CLIENT_CLI_INSTANCE_COMMANDS_H_
#define BACKBONED_CLIENT_CLI_INSTANCE_COMMANDS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backboned/v1/instance_service.pb.h"
#include "client/cli/command_line.h"
#include "client/cpp/client.h"

namespace backboned::cli {

// Adds `ls`, `show` and `rm`.
void AddInstanceCommands(CommandLine& line);

// Returns all instances that the caller may use, of all pages.
absl::StatusOr<v1::ListInstancesResponse> ListAll(const client::Client& client);

// Asks on a terminal whether to delete `what`. Returns kCancelled if not.
absl::Status AskToDelete(const std::string& what);

// Deletes each by `remove`, and prints that it did. Returns the first error,
// and prints the others.
absl::Status DeleteEach(
    const std::vector<std::string>& names, bool is_json,
    const std::function<absl::Status(const std::string&)>& remove);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_INSTANCE_COMMANDS_H_
