// Writes files that others may read at any moment.

#ifndef BACKBONED_BASE_REPLACE_FILE_H_
#define BACKBONED_BASE_REPLACE_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace backboned {

// Makes `text` the content of a file by a rename: a reader finds the old file
// or the new one, also after a crash. The file keeps its owner and mode; a new
// one is its owner's alone.
//
// Returns kFailedPrecondition, which names the file, if that cannot be.
absl::Status ReplaceFile(const std::string& path, const std::string& text);

}  // namespace backboned

#endif  // BACKBONED_BASE_REPLACE_FILE_H_
