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

// Exit statuses, by the kind of error.
enum ExitCode {
  kDone = 0,
  kFailed = 1,
  kUsage = 2,
  kUnreachable = 3,
  kMissing = 4,
  kNotAllowed = 5,
  kConflict = 6,
  kExhausted = 7,
  kInterrupted = 130,
};

// Their meaning, for the man page; docs/backbonectl.md has the same.
struct ExitMeaning {
  ExitCode code;
  const char* meaning;
};
inline constexpr ExitMeaning kExitMeanings[] = {
    {kDone, "Done."},
    {kFailed, "Failed for another reason than those below."},
    {kUsage, "The command line is wrong, or a value in it."},
    {kUnreachable, "The server cannot be reached, or serves no more."},
    {kMissing, "There is no such instance, checkpoint, user or file."},
    {kNotAllowed, "The caller may not do this, or is unknown."},
    {kConflict,
     "It exists already, has another version, or is in a state that does not "
     "allow this."},
    {kExhausted, "A limit is reached, a disk is full, or time is over."},
    {kInterrupted, "Interrupted by Ctrl-C; nothing is left half-written."},
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
  // wrong, and returns the exit status; all that was printed has left.
  int Run(int argc, const char* const* argv);

 private:
  CLI::App app_;
  absl::Status status_;  // Of the command.
};

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_COMMAND_LINE_H_
