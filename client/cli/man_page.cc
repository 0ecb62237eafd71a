#include "client/cli/man_page.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli/command_line.h"

namespace backboned::cli {
namespace {

// Returns a text that roff prints as it is.
std::string Plain(const std::string& text) {
  std::string plain = absl::StrReplaceAll(
      text, {{"\\", "\\e"}, {"-", "\\-"}, {"~", "\\(ti"}, {"^", "\\(ha"}});
  // A line that begins so would be a request.
  if (!plain.empty() && (plain[0] == '.' || plain[0] == '\'')) {
    plain.insert(0, "\\&");
  }
  return plain;
}

std::string Bold(const std::string& text) {
  return absl::StrCat("\\fB", Plain(text), "\\fR");
}

std::string Slanted(const std::string& text) {
  return absl::StrCat("\\fI", Plain(text), "\\fR");
}

// Returns a paragraph with a term.
std::string Term(const std::string& term, const std::string& text) {
  return absl::StrCat(".TP\n", term, "\n", text, "\n");
}

std::string Value(const OptionNode& option) {
  if (option.type.empty()) return "";
  return option.choices.empty()
             ? absl::StrCat(" ", Slanted(option.type))
             : absl::StrCat(" ", Plain(absl::StrJoin(option.choices, "|")));
}

std::string Option(const OptionNode& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.names) names.push_back(Bold(name));
  std::string text = absl::StrCat(Plain(option.help), ".");
  if (!option.default_value.empty()) {
    absl::StrAppend(&text, " Default: ", Plain(option.default_value), ".");
  }
  return Term(absl::StrCat(absl::StrJoin(names, ", "), Value(option)), text);
}

std::string Synopsis(const CommandNode& node) {
  std::string line = Bold("backbonectl " + absl::StrJoin(node.path, " "));
  absl::StrAppend(&line, " [", Slanted("OPTIONS"), "]");
  for (const OptionNode& place : node.places) {
    const std::string name =
        absl::StrCat(Slanted(place.names[0]), place.repeats ? "..." : "");
    absl::StrAppend(&line, " ",
                    place.is_required ? name : absl::StrCat("[", name, "]"));
  }
  return line;
}

std::string Command(const CommandNode& node) {
  std::string text =
      absl::StrCat(".SS ", Plain(absl::StrJoin(node.path, " ")), "\n",
                   Synopsis(node), "\n.PP\n", Plain(node.help), ".\n");
  for (const OptionNode& place : node.places) {
    absl::StrAppend(&text, Term(Slanted(place.names[0]),
                                absl::StrCat(Plain(place.help), ".")));
  }
  std::vector<std::string> common;
  for (const OptionNode& option : node.options) {
    if (option.names.back() == "--help") continue;
    if (option.is_common) {
      common.push_back(Bold(option.names.back()));
    } else {
      absl::StrAppend(&text, Option(option));
    }
  }
  if (!common.empty()) {
    absl::StrAppend(&text, ".PP\nAlso takes ", absl::StrJoin(common, ", "),
                    ".\n");
  }
  return text;
}

void AddCommands(const CommandNode& node, std::string& text) {
  if (node.commands.empty()) absl::StrAppend(&text, Command(node));
  for (const CommandNode& command : node.commands) AddCommands(command, text);
}

// Returns the options that commands share, of the first that has them.
std::string CommonOptions(const CommandNode& node) {
  std::string text;
  for (const OptionNode& option : node.options) {
    if (option.is_common) absl::StrAppend(&text, Option(option));
  }
  for (const CommandNode& command : node.commands) {
    if (text.empty()) text = CommonOptions(command);
  }
  return text;
}

std::string Environment() {
  return absl::StrCat(
      Term(Bold("BACKBONED_SERVER"),
           "The server, if neither \\fB\\-\\-server\\fR nor "
           "\\fB\\-\\-connection\\fR names one."),
      Term(Bold("BACKBONED_CONNECTION"), "A connection file, after that."),
      Term(Bold("BACKBONED_USERS"),
           "The users file, if \\fB\\-\\-users\\fR names none."),
      Term(Bold("NO_COLOR"), "If set, nothing is bold."));
}

}  // namespace

std::string ManPage(const CommandNode& program) {
  std::string text = absl::StrCat(
      ".\\\" Printed by backbonectl itself.\n",
      ".TH BACKBONECTL 1 \"\" \"Backboned ", BACKBONED_VERSION,
      "\" \"User Commands\"\n",
      ".SH NAME\nbackbonectl \\- command line of a Backboned server\n",
      ".SH SYNOPSIS\n", Bold("backbonectl"), " ", Slanted("COMMAND"), " [",
      Slanted("OPTIONS"), "]\n", ".SH DESCRIPTION\n", Plain(program.help),
      "\n.SH COMMANDS\n");
  AddCommands(program, text);
  absl::StrAppend(&text, ".SH SERVER\nCommands that call a server take:\n",
                  CommonOptions(program), ".SH EXIT STATUS\n");
  for (const ExitMeaning& exit : kExitMeanings) {
    absl::StrAppend(&text,
                    Term(Bold(absl::StrCat(exit.code)), Plain(exit.meaning)));
  }
  return absl::StrCat(text, ".SH ENVIRONMENT\n", Environment(),
                      ".SH SEE ALSO\n", Bold("backboned --help"), "\n");
}

}  // namespace backboned::cli
