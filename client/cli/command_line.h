// Lets each command add itself to the command line of backbonectl.
//
//   void AddPing(CommandLine& line) {
//     const auto options = std::make_shared<ServerOptions>();
//     CLI::App* const ping = line.Add("ping", "Asks the server's version", [=]
//     {
//       return Ping(*options);
//     });
//     AddServerOptions(ping, *options);
//   }
//
// main.cc then has one line more: AddPing(line).

#ifndef BACKBONED_CLIENT_CLI_COMMAND_LINE_H_
#define BACKBONED_CLIENT_CLI_COMMAND_LINE_H_

#include <CLI/App.hpp>
#include <functional>
#include <string>

#include "absl/status/status.h"

namespace backboned::cli {

// Exit statuses, by the kind of error. docs/backbonectl.md has them.
enum ExitCode {
  kDone = 0,
  kFailed = 1,         // None of the others.
  kUsage = 2,          // The command line, or a value in it.
  kUnreachable = 3,    // No server, or one that serves no more.
  kMissing = 4,        // No such instance, checkpoint, user, file.
  kNotAllowed = 5,     // Who calls may not.
  kConflict = 6,       // It exists, was changed, or is in another state.
  kExhausted = 7,      // A limit, a full disk, a deadline.
  kInterrupted = 130,  // Ctrl-C.
};

// Returns the exit status of a command that ended with `status`.
ExitCode ExitCodeOf(const absl::Status& status);

// The tree of the commands. Not thread-safe.
class CommandLine {
 public:
  // Does a command. An error is one sentence for the one who typed it.
  using Work = std::function<absl::Status()>;

  CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // The program itself, to which groups of commands are added.
  CLI::App& app() { return app_; }

  // Adds a command to `parent`, the program if that is null. `work` runs once
  // all options are read; what it uses must live as long as this.
  CLI::App* Add(const std::string& name, const std::string& help, Work work,
                CLI::App* parent = nullptr);

  // Adds a group of commands, of which one must be typed.
  CLI::App* AddGroup(const std::string& name, const std::string& help);

  // Reads the arguments, and does the command that they name. Prints what is
  // wrong, and returns the exit status.
  int Run(int argc, const char* const* argv);

 private:
  CLI::App app_;
  absl::Status status_;  // Of the command.
};

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_COMMAND_LINE_H_
