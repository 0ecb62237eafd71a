#include "client/cli/interrupt.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <climits>
#include <csignal>
#include <cstring>

namespace backboned::cli {
namespace {

// The handler reads these: each is written before its flag. It calls only what
// a handler may.
std::array<char, PATH_MAX> removed_path;
std::atomic<bool> has_removed_path{false};
const char* restoring = "";
std::atomic<bool> restores{false};
termios restored;
std::atomic<bool> restores_mode{false};

static_assert(std::atomic<bool>::is_always_lock_free);

extern "C" void EndProgram(int number) {
  if (has_removed_path) unlink(removed_path.data());
  if (restores) {
    // A text that cannot be written now is lost.
    [[maybe_unused]] const ssize_t written =
        write(STDOUT_FILENO, restoring, std::strlen(restoring));
    if (restores_mode) tcsetattr(STDIN_FILENO, TCSANOW, &restored);
  }
  _exit(128 + number);
}

}  // namespace

void HandleInterrupts() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    sigaction(number, nullptr, &action);
    if (action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = &EndProgram;
    sigfillset(&action.sa_mask);
    sigaction(number, &action, nullptr);
  }
}

void RemoveWhenInterrupted(const std::string& path) {
  has_removed_path = false;
  if (path.empty() || path.size() >= removed_path.size()) return;
  std::memcpy(removed_path.data(), path.c_str(), path.size() + 1);
  has_removed_path = true;
}

void RestoreWhenInterrupted(const char* text, const termios* mode) {
  restores = false;
  if (*text == '\0') return;
  restoring = text;
  if (mode != nullptr) restored = *mode;
  restores_mode = mode != nullptr;
  restores = true;
}

}  // namespace backboned::cli
