// Tells other processes where the server serves.

#ifndef BACKBONED_SERVER_PROCESS_READY_FILE_H_
#define BACKBONED_SERVER_PROCESS_READY_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace backboned {

// A connection file, which clients connect by: `target: unix:/path`. It is
// there while this object is, and whole whenever it is there.
class ReadyFile {
 public:
  // Writes the file by a rename, over one that is there. Returns
  // kFailedPrecondition if it cannot be written.
  static absl::StatusOr<ReadyFile> Write(const std::string& path,
                                         const std::string& target);

  ReadyFile(ReadyFile&& other) noexcept;
  ReadyFile& operator=(ReadyFile&&) = delete;

  // Removes it, unless another server has written its own meanwhile.
  ~ReadyFile();

 private:
  ReadyFile(std::string path, std::string text);

  std::string path_;  // Empty: moved from.
  std::string text_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_READY_FILE_H_
