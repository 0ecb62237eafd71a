#include "base/replace_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace backboned {
namespace {

bool WriteAll(int file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(file, text.data(), text.size());
    if (count < 0) return false;
    text.remove_prefix(static_cast<size_t>(count));
  }
  return fsync(file) == 0;
}

// Gives a new file the owner and the mode that the one at `path` will have.
bool SetOwner(int file, const std::string& path, std::optional<mode_t> mode) {
  const bool is_root = geteuid() == 0;
  struct stat owner = {};
  const bool is_there = stat(path.c_str(), &owner) == 0;
  const mode_t kept = is_there ? owner.st_mode & 07777 : kPrivate;
  if (!is_there && is_root) {
    const std::string folder = std::filesystem::path(path).parent_path();
    if (stat(folder.empty() ? "." : folder.c_str(), &owner) != 0) return false;
  }
  if ((is_there || is_root) && fchown(file, owner.st_uid, owner.st_gid) != 0) {
    return false;
  }
  return fchmod(file, mode.value_or(kept)) == 0;
}

// Writes a file beside `path`, and puts it there by `place`, which returns 0 if
// it can.
absl::Status Put(const std::string& named, std::string_view text,
                 std::optional<mode_t> mode,
                 int (*place)(const char*, const char*)) {
  std::error_code error_code;
  const std::filesystem::path real =
      std::filesystem::canonical(named, error_code);
  const std::string path = error_code ? named : real.string();
  std::string made = absl::StrCat(path, ".XXXXXX");
  const int file = mkostemp(made.data(), O_CLOEXEC);
  const bool is_placed = file >= 0 && SetOwner(file, path, mode) &&
                         WriteAll(file, text) &&
                         place(made.c_str(), path.c_str()) == 0;
  const int error = errno;
  if (file >= 0) {
    close(file);
    unlink(made.c_str());  // Not there after a rename.
  }
  if (is_placed) return absl::OkStatus();
  if (error == EEXIST) {
    return absl::AlreadyExistsError(absl::StrCat(path, " exists"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("cannot write ", path, ": ", std::strerror(error)));
}

}  // namespace

absl::Status ReplaceFile(const std::string& path, std::string_view text,
                         std::optional<mode_t> mode) {
  return Put(path, text, mode, &std::rename);
}

absl::Status MakeFile(const std::string& path, std::string_view text,
                      mode_t mode) {
  return Put(path, text, mode, &link);
}

}  // namespace backboned
