#include "server/process/parent.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"

namespace backboned {

absl::Status SignalParentsEnd(pid_t parent, int signal) {
  // PR_SET_PDEATHSIG would watch the parent's thread, which may end before it.
  const auto watched = static_cast<int>(syscall(SYS_pidfd_open, parent, 0));
  // While it is the parent, its number is no other process's.
  if (watched < 0 || getppid() != parent) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot watch the process that started this one: ",
                     std::strerror(watched < 0 ? errno : ESRCH)));
  }
  std::thread([watched, signal] {
    pollfd end = {.fd = watched, .events = POLLIN};
    while (poll(&end, 1, -1) < 0 && errno == EINTR) {
    }
    kill(getpid(), signal);
  }).detach();
  return absl::OkStatus();
}

}  // namespace backboned
