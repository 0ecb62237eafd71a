#include <cstddef>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli/completion.h"

namespace backboned::cli {
namespace {

// Returns a text between single quotes, as fish reads it.
std::string FishQuoted(const std::string& text) {
  return absl::StrCat(
      "'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

std::string FishValue(const OptionNode& option) {
  switch (option.offer) {
    case Offer::kFile:
      return " -r -F";
    case Offer::kFolder:
      return " -x -a '(__fish_complete_directories)'";
    case Offer::kInstance:
      return " -x -a '(__backbonectl_instances)'";
    case Offer::kChoices:
      return absl::StrCat(" -x -a ",
                          FishQuoted(absl::StrJoin(option.choices, " ")));
    default:
      return option.type.empty() ? "" : " -x";
  }
}

std::string FishCommand(const CommandNode& node) {
  std::string text;
  const std::string path = absl::StrJoin(node.path, " ");
  const auto add = [&](const std::string& condition) {
    absl::StrAppend(&text, "complete -c backbonectl -n ",
                    FishQuoted(absl::StrCat(condition, " ", path)));
  };
  for (const CommandNode& command : node.commands) {
    add("__backbonectl_is");
    absl::StrAppend(&text, " -a ", command.path.back(), " -d ",
                    FishQuoted(command.help), "\n");
  }
  for (const OptionNode& option : node.options) {
    add("__backbonectl_below");
    for (const std::string& name : option.names) {
      const bool is_long = name[1] == '-';
      absl::StrAppend(&text, is_long ? " -l " : " -s ",
                      name.substr(is_long ? 2 : 1));
    }
    absl::StrAppend(&text, FishValue(option), " -d ", FishQuoted(option.help),
                    "\n");
  }
  for (size_t i = 0; i < node.places.size(); ++i) {
    const OptionNode& place = node.places[i];
    if (place.offer == Offer::kNothing) continue;
    add(absl::StrCat(
        place.repeats ? "__backbonectl_from_place " : "__backbonectl_place ",
        i));
    absl::StrAppend(&text, FishValue(place), "\n");
  }
  return text;
}

constexpr char kFishBegin[] =
    R"sh(# Completes backbonectl in fish: backbonectl completion fish | source

# The words that are neither options nor their values, without the program.
function __backbonectl_words
    set -l is_value false
    for word in (commandline -opc)[2..]
        if test $is_value = true
            set is_value false
        else if contains -- $word $__backbonectl_values
            set is_value true
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

# Whether these commands were typed, and nothing else.
function __backbonectl_is
    set -l words (__backbonectl_words)
    test "$words" = "$argv"
end

# Whether these commands were typed first.
function __backbonectl_below
    set -l words (__backbonectl_words)
    set -l count (count $argv)
    test $count -eq 0; or test "$words[1..$count]" = "$argv"
end

# Whether these commands were typed, and then so many words.
function __backbonectl_place
    set -l count (count (__backbonectl_words))
    __backbonectl_below $argv[2..]
    and test $count -eq (math $argv[1] + (count $argv) - 1)
end

# The same, or more words.
function __backbonectl_from_place
    set -l count (count (__backbonectl_words))
    __backbonectl_below $argv[2..]
    and test $count -ge (math $argv[1] + (count $argv) - 1)
end

function __backbonectl_instances
    set -l server
    set -l words (commandline -opc)
    for i in (seq 2 (count $words))
        switch $words[$i]
            case --server --connection
                set server $words[$i] $words[(math $i + 1)]
            case '--server=*' '--connection=*'
                set server $words[$i]
        end
    end
    command backbonectl ls --names --timeout 1 $server 2>/dev/null
end

complete -c backbonectl -f
)sh";

}  // namespace

std::string FishCompletion(const CommandNode& program) {
  std::string script = kFishBegin;
  std::set<std::string> values;
  Walk(program, [&values](const CommandNode& node) {
    for (const OptionNode& option : node.options) {
      if (option.type.empty()) continue;
      values.insert(option.names.begin(), option.names.end());
    }
  });
  absl::StrAppend(&script, "\n# The options that take a value.\n",
                  "set -g __backbonectl_values ", absl::StrJoin(values, " "),
                  "\n\n");
  Walk(program, [&script](const CommandNode& node) {
    absl::StrAppend(&script, FishCommand(node));
  });
  return script;
}

}  // namespace backboned::cli
