// Writes a large file so that it is there whole, or not at all.

#ifndef BACKBONED_CLIENT_CLI_OUTPUT_FILE_H_
#define BACKBONED_CLIENT_CLI_OUTPUT_FILE_H_

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/descriptor.h"

namespace backboned::cli {

// A file that is being written, beside the one whose place it takes at the end.
// It goes with this object, and with the program at Ctrl-C. A pipe, and all
// else that is no regular file, is written itself. One at a time.
class OutputFile {
 public:
  // Returns kFailedPrecondition, which names the file, if it cannot be made.
  static absl::StatusOr<OutputFile> Create(const std::string& path);

  OutputFile(OutputFile&& other) noexcept
      : path_(std::move(other.path_)),
        made_(std::exchange(other.made_, "")),
        file_(std::move(other.file_)) {}
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();

  // Appends bytes. Returns kResourceExhausted if the disk is full.
  absl::Status Write(std::span<const std::byte> bytes);

  // Puts the file into its place.
  absl::Status Finish();

 private:
  OutputFile(std::string path, std::string made, int file)
      : path_(std::move(path)), made_(std::move(made)), file_(file) {}

  absl::Status Failure() const;

  std::string path_;
  std::string made_;  // Empty: nothing is to be renamed.
  Descriptor file_;
};

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_OUTPUT_FILE_H_
