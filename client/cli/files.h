// Reads and writes the small files of who runs a server.

#ifndef BACKBONED_CLIENT_CLI_FILES_H_
#define BACKBONED_CLIENT_CLI_FILES_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace backboned::cli {

inline constexpr mode_t kPublic = 0644;

// Returns a file's text. kNotFound if there is no such file, and
// kFailedPrecondition if it cannot be read. The message names the file.
absl::StatusOr<std::string> ReadText(const std::string& path);

// Gives a file this text and mode by ReplaceFile, unless it has both. Returns
// whether the file changed, or kFailedPrecondition.
absl::StatusOr<bool> WriteText(const std::string& path, std::string_view text,
                               mode_t mode);

// Returns a path beside a file.
std::string Beside(const std::string& file, std::string_view name);

// Keeps a folder from others who would hold such a lock of it.
class FolderLock {
 public:
  // Waits until nobody else has it. Returns kFailedPrecondition if the folder
  // of `file` cannot be opened.
  static absl::StatusOr<FolderLock> OfFile(const std::string& file);

  FolderLock(FolderLock&& other) noexcept
      : folder_(std::exchange(other.folder_, -1)) {}
  FolderLock& operator=(FolderLock&&) = delete;
  ~FolderLock();

 private:
  explicit FolderLock(int folder) : folder_(folder) {}

  int folder_;
};

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_FILES_H_
