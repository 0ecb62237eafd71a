#include "client/cli/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/interrupt.h"

namespace backboned::cli {

absl::StatusOr<OutputFile> OutputFile::Create(const std::string& path) {
  struct stat there = {};
  const bool is_there = stat(path.c_str(), &there) == 0;
  const bool is_special = is_there && !S_ISREG(there.st_mode);
  std::string real = path;
  std::string made;
  if (!is_special) {
    std::error_code missing;  // A link stays.
    const auto target = std::filesystem::canonical(path, missing);
    if (!missing) real = target.string();
    made = absl::StrCat(real, ".", getpid(), ".tmp");
    RemoveWhenInterrupted(made);
  }
  const int flags = O_WRONLY | O_CLOEXEC | (is_special ? 0 : O_CREAT | O_EXCL);
  const int file = open((is_special ? real : made).c_str(), flags, 0666);
  if (file < 0) {
    RemoveWhenInterrupted("");
    return OutputFile(path, "", file).Failure();
  }
  if (is_there && !is_special) {
    fchmod(file, there.st_mode & 07777);  // As well as it goes.
  }
  return OutputFile(std::move(real), std::move(made), file);
}

OutputFile::~OutputFile() {
  if (made_.empty()) return;
  unlink(made_.c_str());  // Not there after a rename.
  RemoveWhenInterrupted("");
}

absl::Status OutputFile::Write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(file_.get(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Failure();
    bytes = bytes.subspan(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Finish() {
  if (made_.empty()) return absl::OkStatus();
  if (fsync(file_.get()) != 0 ||
      std::rename(made_.c_str(), path_.c_str()) != 0) {
    return Failure();
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Failure() const {
  const bool is_full = errno == ENOSPC || errno == EDQUOT;
  const std::string message =
      absl::StrCat("cannot write ", path_, ": ", std::strerror(errno));
  return is_full ? absl::ResourceExhaustedError(message)
                 : absl::FailedPreconditionError(message);
}

}  // namespace backboned::cli
