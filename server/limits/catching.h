// Turns exceptions into statuses.

#ifndef BACKBONED_SERVER_LIMITS_CATCHING_H_
#define BACKBONED_SERVER_LIMITS_CATCHING_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace backboned {

// Runs `work` and returns its status. An exception becomes a status:
//
// * OutOfMemoryBudget: the limit's error;
// * another want of memory: kResourceExhausted (kOutOfMemory);
// * anything else: kInternal (kComputeFailed). The message gives an id and
//   nothing of the cause, which may name LibTorch's sources; an error line of
//   the log has the cause under the same id.
absl::Status RunCatching(absl::FunctionRef<absl::Status()> work);

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_CATCHING_H_
