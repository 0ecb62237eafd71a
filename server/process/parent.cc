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

absl::Status EndWithParent() {
  // PR_SET_PDEATHSIG would watch the parent's thread, which may end before it.
  const auto parent = static_cast<int>(syscall(SYS_pidfd_open, getppid(), 0));
  if (parent < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot watch the process that started this one: ",
                     std::strerror(errno)));
  }
  std::thread([parent] {
    pollfd end = {.fd = parent, .events = POLLIN};
    while (poll(&end, 1, -1) < 0 && errno == EINTR) {
    }
    kill(getpid(), SIGTERM);
  }).detach();
  return absl::OkStatus();
}

}  // namespace backboned
