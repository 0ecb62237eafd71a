// Writes files that others may read at any moment.

#ifndef BACKBONED_BASE_REPLACE_FILE_H_
#define BACKBONED_BASE_REPLACE_FILE_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace backboned {

// The mode of a file that is its owner's alone.
inline constexpr mode_t kPrivate = 0600;

// Makes `text` the content of a file by a rename: a reader finds the old file
// or the new one, also after a crash. A link stays. The file keeps its owner,
// and its mode unless `mode` is another. A new one is kPrivate by itself, and,
// if root writes it, its folder's owner's.
//
// Returns kFailedPrecondition, which names the file, if that cannot be.
absl::Status ReplaceFile(const std::string& path, std::string_view text,
                         std::optional<mode_t> mode = std::nullopt);

// Does the same for a file that is not there yet. Returns kAlreadyExists if it
// is.
absl::Status MakeFile(const std::string& path, std::string_view text,
                      mode_t mode = kPrivate);

}  // namespace backboned

#endif  // BACKBONED_BASE_REPLACE_FILE_H_
