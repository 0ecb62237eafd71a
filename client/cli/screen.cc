#include "client/cli/screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <string_view>
#include <vector>

#include "absl/time/clock.h"
#include "client/cli/interrupt.h"

namespace backboned::cli {
namespace {

// The second screen; the cursor hides, and long lines do not wrap.
constexpr char kEnter[] = "\x1b[?1049h\x1b[?25l\x1b[?7l";
constexpr char kLeave[] = "\x1b[?7h\x1b[?25h\x1b[?1049l";

constexpr size_t kUsualRows = 24;

size_t Rows() {
  winsize size = {};
  const bool is_known =
      ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
  return is_known ? size.ws_row : kUsualRows;
}

}  // namespace

Screen::Screen() {
  has_keys_ = tcgetattr(STDIN_FILENO, &mode_) == 0;
  RestoreWhenInterrupted(kLeave, has_keys_ ? &mode_ : nullptr);
  if (has_keys_) {
    termios quiet = mode_;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    quiet.c_cc[VSUSP] = _POSIX_VDISABLE;  // It would leave the mode behind.
    tcsetattr(STDIN_FILENO, TCSANOW, &quiet);
  }
  std::cout << kEnter << std::flush;
}

Screen::~Screen() {
  std::cout << kLeave << std::flush;
  if (has_keys_) tcsetattr(STDIN_FILENO, TCSANOW, &mode_);
  RestoreWhenInterrupted("", nullptr);
}

void Screen::Show(const std::string& text) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  while (begin < text.size() && lines.size() < Rows()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
  }
  std::string picture = "\x1b[H";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) picture += "\n";
    picture += lines[i];
    picture += "\x1b[K";
  }
  std::cout << picture << "\x1b[J" << std::flush;
}

std::optional<char> Screen::WaitForKey(absl::Time until) {
  while (true) {
    const auto left = absl::ToInt64Milliseconds(until - absl::Now());
    if (left < 0) return std::nullopt;
    pollfd keys = {
        .fd = has_keys_ ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0};
    if (poll(&keys, 1, static_cast<int>(left) + 1) <= 0) continue;
    char key = 0;
    if (read(STDIN_FILENO, &key, 1) == 1) return key;
    has_keys_ = false;  // The terminal has gone.
  }
}

}  // namespace backboned::cli
