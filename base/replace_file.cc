#include "base/replace_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace backboned {
namespace {

bool WriteAll(int file, const std::string& text) {
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t count =
        write(file, text.data() + written, text.size() - written);
    if (count < 0) return false;
    written += static_cast<size_t>(count);
  }
  return fsync(file) == 0;
}

// Gives a new file the owner and the mode of the one at `path`, if it is there.
bool CopyOwner(int file, const std::string& path) {
  struct stat old = {};
  if (stat(path.c_str(), &old) != 0) return true;
  return fchown(file, old.st_uid, old.st_gid) == 0 &&
         fchmod(file, old.st_mode & 07777) == 0;
}

}  // namespace

absl::Status ReplaceFile(const std::string& path, const std::string& text) {
  std::string made = absl::StrCat(path, ".XXXXXX");
  const int file = mkostemp(made.data(), O_CLOEXEC);
  const bool is_replaced = file >= 0 && CopyOwner(file, path) &&
                           WriteAll(file, text) &&
                           std::rename(made.c_str(), path.c_str()) == 0;
  const int error = errno;
  if (file >= 0) close(file);
  if (is_replaced) return absl::OkStatus();
  if (file >= 0) unlink(made.c_str());
  return absl::FailedPreconditionError(
      absl::StrCat("cannot write ", path, ": ", std::strerror(error)));
}

}  // namespace backboned
