// Checks the operator's folder for lasting state, `--state-dir`.

#ifndef BACKBONED_SERVER_PROCESS_STATE_FOLDER_H_
#define BACKBONED_SERVER_PROCESS_STATE_FOLDER_H_

#include <string>

#include "absl/status/status.h"

namespace backboned {

// Makes a file in the folder `path` and removes it.
//
// Returns kFailedPrecondition if that fails; the message names the cause and
// the user of this process.
absl::Status CheckStateFolder(const std::string& path);

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_STATE_FOLDER_H_
