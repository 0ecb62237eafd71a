#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli/completion.h"

namespace backboned::cli {
namespace {

// Returns the name of the function that completes a command in zsh.
std::string ZshFunction(const CommandNode& node) {
  return absl::StrJoin(
      [&node] {
        std::vector<std::string> parts = {"_backbonectl"};
        parts.insert(parts.end(), node.path.begin(), node.path.end());
        return parts;
      }(),
      "_");
}

std::string ZshAction(const OptionNode& option) {
  switch (option.offer) {
    case Offer::kFile:
      return "_files";
    case Offer::kFolder:
      return "_files -/";
    case Offer::kInstance:
      return "_backbonectl_instances";
    case Offer::kChoices:
      return absl::StrCat("(", absl::StrJoin(option.choices, " "), ")");
    default:
      return " ";
  }
}

// Returns a text as it may stand in a specification of _arguments.
std::string ZshText(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"\\", "\\\\"}, {":", "\\:"}, {"[", "\\["}, {"]", "\\]"}});
}

std::string ZshOption(const OptionNode& option) {
  std::string value;
  if (!option.type.empty()) {
    value = absl::StrCat(":", ZshText(option.type), ":", ZshAction(option));
  }
  std::string specs;
  for (const std::string& name : option.names) {
    const std::string others =
        option.repeats
            ? "*"
            : absl::StrCat("(", absl::StrJoin(option.names, " "), ")");
    // Takes its value behind a space or `=`.
    const bool has_equals = !option.type.empty() && name[1] == '-';
    const std::string spec =
        absl::StrCat(others, name, has_equals ? "=" : "", "[",
                     ZshText(option.help), "]", value);
    absl::StrAppend(&specs, " \\\n    ", ShellText(spec));
  }
  return specs;
}

std::string ZshPlaces(const CommandNode& node) {
  std::string specs;
  for (const OptionNode& place : node.places) {
    absl::StrAppend(&specs, " \\\n    ",
                    ShellText(absl::StrCat(
                        place.repeats ? "*" : "",
                        place.is_required || place.repeats ? ":" : "::",
                        ZshText(place.names[0]), ":", ZshAction(place))));
  }
  return specs;
}

std::string ZshCommand(const CommandNode& node) {
  const bool is_group = !node.commands.empty();
  std::string text = absl::StrCat(ZshFunction(node), "() {\n");
  if (is_group) absl::StrAppend(&text, "  local state line\n");
  absl::StrAppend(&text, "  _arguments", is_group ? " -C" : "");
  for (const OptionNode& option : node.options) {
    absl::StrAppend(&text, ZshOption(option));
  }
  if (!is_group) {
    return absl::StrCat(text, ZshPlaces(node), "\n}\n\n");
  }
  absl::StrAppend(&text,
                  " \\\n    '1:command:->command'"
                  " \\\n    '*::argument:->argument'\n"
                  "  case $state in\n"
                  "    command)\n"
                  "      local -a commands=(\n");
  for (const CommandNode& command : node.commands) {
    absl::StrAppend(&text, "        ",
                    ShellText(absl::StrCat(command.path.back(), ":",
                                           ZshText(command.help))),
                    "\n");
  }
  return absl::StrCat(text,
                      "      )\n"
                      "      _describe command commands ;;\n"
                      "    argument)\n"
                      "      (( ! $+functions[",
                      ZshFunction(node), "_$line[1]] )) || ", ZshFunction(node),
                      "_$line[1] ;;\n"
                      "  esac\n"
                      "}\n\n");
}

constexpr char kZshBegin[] =
    R"sh(#compdef backbonectl
# Completes backbonectl in zsh: source <(backbonectl completion zsh), or as a
# file _backbonectl in a folder of $fpath.

_backbonectl_instances() {
  local -a server names
  local i
  for ((i = 2; i < $#words; ++i)); do
    case $words[i] in
      (--server|--connection) server=($words[i] ${(Q)words[i+1]}) ;;
      (--server=*|--connection=*) server=(${(Q)words[i]}) ;;
    esac
  done
  names=("${(@f)$(backbonectl ls --names --timeout 1 $server 2>/dev/null)}")
  compadd -a names
}

)sh";

constexpr char kZshEnd[] = R"sh(if [[ $funcstack[1] == _backbonectl ]]; then
  _backbonectl "$@"
else
  compdef _backbonectl backbonectl
fi
)sh";

}  // namespace

std::string ZshCompletion(const CommandNode& program) {
  std::string script = kZshBegin;
  Walk(program, [&script](const CommandNode& node) {
    absl::StrAppend(&script, ZshCommand(node));
  });
  return script + kZshEnd;
}

}  // namespace backboned::cli
