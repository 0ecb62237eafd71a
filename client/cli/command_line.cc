#include "client/cli/command_line.h"

#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cstdio>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"

namespace backboned::cli {
namespace {

int Refuse(std::string_view message, ExitCode code) {
  std::cerr << "backbonectl: " << message << "\n";
  return code;
}

// Returns the command that was typed, without its options.
std::string TypedOf(const CLI::App& app) {
  std::string typed = app.get_name();
  for (const CLI::App* part : app.get_subcommands()) {
    absl::StrAppend(&typed, " ", TypedOf(*part));
  }
  return typed;
}

}  // namespace

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kDone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kUsage;
    case absl::StatusCode::kUnavailable:
      return kUnreachable;
    case absl::StatusCode::kNotFound:
      return kMissing;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kNotAllowed;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kFailedPrecondition:
      return kConflict;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kDeadlineExceeded:
      return kExhausted;
    default:
      return kFailed;
  }
}

CommandLine::CommandLine()
    : app_("Runs a Backboned server's instances, users and front.",
           "backbonectl") {
  app_.set_version_flag("--version",
                        absl::StrCat("backbonectl ", BACKBONED_VERSION));
  app_.require_subcommand(1);
}

CLI::App* CommandLine::Add(const std::string& name, const std::string& help,
                           Work work, CLI::App* parent) {
  CLI::App* const command =
      (parent == nullptr ? &app_ : parent)->add_subcommand(name, help);
  command->callback([this, work = std::move(work)] { status_ = work(); });
  return command;
}

CLI::App* CommandLine::AddGroup(const std::string& name,
                                const std::string& help) {
  CLI::App* const group = app_.add_subcommand(name, help);
  group->require_subcommand(1);
  return group;
}

int CommandLine::Run(int argc, const char* const* argv) {
  int code = kDone;
  try {
    app_.parse(argc, argv);
  } catch (const CLI::Success& help) {
    code = app_.exit(help);
  } catch (const CLI::ParseError& error) {
    return Refuse(
        absl::StrCat(error.what(), "; see ", TypedOf(app_), " --help"), kUsage);
  }
  // A command that failed may have printed something before.
  const bool is_printed = std::cout.flush() && std::fflush(stdout) == 0;
  if (!status_.ok()) {
    return Refuse(std::string(status_.message()), ExitCodeOf(status_));
  }
  return is_printed ? code
                    : Refuse("standard output cannot be written", kFailed);
}

}  // namespace backboned::cli
