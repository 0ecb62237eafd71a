#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/completion.h"

namespace backboned::cli {
namespace {

std::string NamesOf(const std::vector<CommandNode>& commands) {
  return absl::StrJoin(commands, " ",
                       [](std::string* out, const CommandNode& command) {
                         absl::StrAppend(out, command.path.back());
                       });
}

// Returns how the bash script names what a value is: `file`, `=a,b`.
std::string BashKind(const OptionNode& option) {
  switch (option.offer) {
    case Offer::kFile:
      return "file";
    case Offer::kFolder:
      return "folder";
    case Offer::kInstance:
      return "instance";
    case Offer::kChoices:
      return absl::StrCat("=", absl::StrJoin(option.choices, ","));
    default:
      return "other";
  }
}

// Returns the line of the script that says what a command takes.
std::string BashSpec(const CommandNode& node) {
  std::vector<std::string> options;
  std::vector<std::string> values;
  std::vector<std::string> places;
  for (const OptionNode& option : node.options) {
    for (const std::string& name : option.names) {
      options.push_back(name);
      if (option.type.empty()) continue;
      values.push_back(absl::StrCat(name, ":", BashKind(option)));
    }
  }
  for (const OptionNode& place : node.places) {
    places.push_back(absl::StrCat(BashKind(place), place.repeats ? "..." : ""));
  }
  return absl::StrCat("    ", ShellText(absl::StrJoin(node.path, " ")),
                      ") commands=", ShellText(NamesOf(node.commands)),
                      " options=", ShellText(absl::StrJoin(options, " ")),
                      " values=", ShellText(absl::StrJoin(values, " ")),
                      " places=", ShellText(absl::StrJoin(places, " ")),
                      " ;;\n");
}

constexpr char kBashBegin[] =
    R"sh(# Completes backbonectl in bash: source <(backbonectl completion bash)

# Sets what a command takes.
_backbonectl_spec() {
  case $1 in
)sh";

constexpr char kBashEnd[] = R"sh(  esac
}

# Sets what an option's value is; nothing: it takes none.
_backbonectl_kind() {
  local value
  kind=
  for value in $values; do
    [[ $value != "$1:"* ]] || kind=${value#*:}
  done
}

# Offers words that begin like the present one.
_backbonectl_match() {
  mapfile -t COMPREPLY < <(compgen "$@" -- "$current")
}

# Offers values of a kind.
_backbonectl_offer() {
  local choices=${1#=} names
  case ${1%...} in
    file)
      _backbonectl_match -f
      compopt -o filenames 2>/dev/null ;;
    folder)
      _backbonectl_match -d
      compopt -o filenames 2>/dev/null ;;
    instance)
      names=$("$program" ls --names --timeout 1 "${server[@]}" \
        2>/dev/null </dev/null)
      _backbonectl_match -W "$names" ;;
    =*)
      _backbonectl_match -W "${choices//,/ }" ;;
  esac
}

_backbonectl() {
  local line=${COMP_LINE:0:COMP_POINT} current= path= expects= place=0
  local commands options values places kind word program server=() words
  COMPREPLY=()
  # Words as the program gets them: bash would cut them at colons.
  read -ra words <<<"$line"
  if [[ $line != *[[:space:]] ]]; then
    current=${words[-1]}
    unset 'words[-1]'
  fi
  program=${words[0]/#\~/$HOME}
  _backbonectl_spec ''
  for word in "${words[@]:1}"; do
    if [[ $expects ]]; then
      [[ $expects != --server && $expects != --connection ]] ||
        server=("$expects" "$word")
      expects=
    elif [[ $word == --server=* || $word == --connection=* ]]; then
      server=("$word")
    elif [[ $word == -* ]]; then
      _backbonectl_kind "$word"
      [[ ! $kind ]] || expects=$word
    elif [[ " $commands " == *" $word "* ]]; then
      path+=${path:+ }$word
      _backbonectl_spec "$path"
    else
      place=$((place + 1))
    fi
  done
  if [[ $current == --*=* ]]; then
    expects=${current%%=*}
    current=${current#*=}
  fi
  if [[ $expects ]]; then
    _backbonectl_kind "$expects"
    _backbonectl_offer "$kind"
  elif [[ $current == -* ]]; then
    _backbonectl_match -W "$options"
  elif [[ $commands ]]; then
    _backbonectl_match -W "$commands"
  else
    read -ra words <<<"$places"
    # The last place may be that of all further words.
    if [[ $places == *... && $place -ge ${#words[@]} ]]; then
      place=$((${#words[@]} - 1))
    fi
    _backbonectl_offer "${words[place]-}"
  fi
}

complete -F _backbonectl backbonectl
)sh";

}  // namespace

std::string BashCompletion(const CommandNode& program) {
  std::string script = kBashBegin;
  Walk(program, [&script](const CommandNode& node) {
    absl::StrAppend(&script, BashSpec(node));
  });
  return script + kBashEnd;
}

}  // namespace backboned::cli
