// The operator's folder for what is to outlive the server, `--state-dir`.

#ifndef BACKBONED_SERVER_PROCESS_STATE_FOLDER_H_
#define BACKBONED_SERVER_PROCESS_STATE_FOLDER_H_

#include <string>

#include "absl/status/status.h"

namespace backboned {

// Makes a file in the folder `path` and removes it.
//
// Returns kFailedPrecondition that says what is wrong, and which user this is,
// if it cannot.
absl::Status CheckStateFolder(const std::string& path);

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_STATE_FOLDER_H_
