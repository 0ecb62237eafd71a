#include "server/process/parent.h"

#include <unistd.h>

#include <csignal>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace backboned {

absl::Status SignalParentsEnd(pid_t parent, int signal) {
  if (getppid() != parent) {
    return absl::FailedPreconditionError(
        "the process that started this one has ended");
  }
  // PR_SET_PDEATHSIG would watch the parent's thread, which may end before it,
  // and a pidfd needs Linux 5.3, which not every machine of a cluster has.
  std::thread([parent, signal] {
    while (getppid() == parent) absl::SleepFor(absl::Seconds(1));
    kill(getpid(), signal);
  }).detach();
  return absl::OkStatus();
}

}  // namespace backboned
