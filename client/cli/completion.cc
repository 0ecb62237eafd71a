#include "client/cli/completion.h"

#include <iostream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/cli/man_page.h"

namespace backboned::cli {

std::string ShellText(const std::string& text) {
  return absl::StrCat("'", absl::StrReplaceAll(text, {{"'", "'\\''"}}), "'");
}

void AddShellCommands(CommandLine& line) {
  CLI::App* const app = &line.app();
  const auto shell = std::make_shared<std::string>();
  CLI::App* const completion = line.Add(
      "completion", "Prints a script that completes commands in a shell", [=] {
        const CommandNode program = DescribeCommands(*app);
        std::cout << (*shell == "bash"  ? BashCompletion(program)
                      : *shell == "zsh" ? ZshCompletion(program)
                                        : FishCompletion(program));
        return absl::OkStatus();
      });
  completion->add_option("SHELL", *shell, "bash, zsh or fish")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->required();
  line.Add("man", "Prints the man page",
           [=] {
             std::cout << ManPage(DescribeCommands(*app));
             return absl::OkStatus();
           })
      ->group("");
}

}  // namespace backboned::cli
