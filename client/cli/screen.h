// Takes a terminal for a picture that changes.

#ifndef BACKBONED_CLIENT_CLI_SCREEN_H_
#define BACKBONED_CLIENT_CLI_SCREEN_H_

#include <termios.h>

#include <optional>
#include <string>

#include "absl/time/time.h"

namespace backboned::cli {

// The terminal of standard output, in its second screen, and keys of standard
// input without Enter. The first screen and the mode come back with the end of
// this object, and of the program by Ctrl-C. One at a time.
class Screen {
 public:
  Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;
  ~Screen();

  // Shows as many lines of `text` as the terminal has.
  void Show(const std::string& text);

  // Waits for a key, at most until `until`.
  std::optional<char> WaitForKey(absl::Time until);

 private:
  bool has_keys_ = false;
  termios mode_ = {};
};

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_SCREEN_H_
