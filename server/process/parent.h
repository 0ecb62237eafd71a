// Ends this process with the one that started it.

#ifndef BACKBONED_SERVER_PROCESS_PARENT_H_
#define BACKBONED_SERVER_PROCESS_PARENT_H_

#include "absl/status/status.h"

namespace backboned {

// Sends this process SIGTERM when its parent, as of now, has ended; however it
// ends, and whichever of its threads started this process. Returns
// kFailedPrecondition if the system cannot tell.
absl::Status EndWithParent();

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_PARENT_H_
