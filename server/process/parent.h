// Ends this process with the one that started it.

#ifndef BACKBONED_SERVER_PROCESS_PARENT_H_
#define BACKBONED_SERVER_PROCESS_PARENT_H_

#include <sys/types.h>

#include "absl/status/status.h"

namespace backboned {

// Sends this process `signal` within a second after its parent, the process
// `parent`, has ended; however it ends, and whichever of its threads started
// this process. Returns kFailedPrecondition if it has ended already.
absl::Status SignalParentsEnd(pid_t parent, int signal);

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_PARENT_H_
