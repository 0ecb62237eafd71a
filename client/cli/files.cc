#include "client/cli/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace backboned::cli {
namespace {

absl::Status Failure(const char* doing, const std::string& path) {
  return absl::FailedPreconditionError(
      absl::StrCat("cannot ", doing, " ", path, ": ", std::strerror(errno)));
}

std::string FolderOf(const std::string& file) {
  const std::string folder = std::filesystem::path(file).parent_path();
  return folder.empty() ? "." : folder;
}

// Writes all of the text into an open new file.
bool Fill(int file, std::string_view text, mode_t mode,
          const std::string& folder) {
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written < 0) return false;
    text.remove_prefix(static_cast<size_t>(written));
  }
  struct stat owner = {};
  if (geteuid() == 0 && (stat(folder.c_str(), &owner) != 0 ||
                         fchown(file, owner.st_uid, owner.st_gid) != 0)) {
    return false;
  }
  return fchmod(file, mode) == 0 && fsync(file) == 0;
}

// Writes a file beside `path`, and puts it there by `place`, which returns 0 if
// it can.
template <typename Place>
absl::Status Put(const std::string& path, std::string_view text, mode_t mode,
                 Place place) {
  std::string temporary = path + ".XXXXXX";
  const int file = mkstemp(temporary.data());
  if (file < 0) return Failure("write", path);
  absl::Status status;
  if (!Fill(file, text, mode, FolderOf(path)) ||
      place(temporary.c_str(), path.c_str()) != 0) {
    status = errno == EEXIST
                 ? absl::AlreadyExistsError(absl::StrCat(path, " exists"))
                 : Failure("write", path);
  }
  close(file);
  unlink(temporary.c_str());  // Not there after a rename.
  return status;
}

}  // namespace

absl::StatusOr<std::string> ReadText(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("there is no file ", path));
  }
  if (std::filesystem::is_directory(path)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is a folder, not a file"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return Failure("read", path);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  if (file.bad()) return Failure("read", path);
  return text;
}

absl::StatusOr<bool> WriteText(const std::string& path, std::string_view text,
                               mode_t mode) {
  struct stat file = {};
  if (const auto old = ReadText(path); old.ok() && *old == text &&
                                       stat(path.c_str(), &file) == 0 &&
                                       (file.st_mode & 07777) == mode) {
    return false;
  }
  const absl::Status status = Put(path, text, mode, &std::rename);
  if (!status.ok()) return status;
  return true;
}

absl::Status MakeText(const std::string& path, std::string_view text,
                      mode_t mode) {
  return Put(path, text, mode, &link);
}

std::string Beside(const std::string& file, std::string_view name) {
  return std::filesystem::path(file).replace_filename(name);
}

absl::StatusOr<FolderLock> FolderLock::OfFile(const std::string& file) {
  const std::string path = FolderOf(file);
  const int folder = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return Failure("open the folder", path);
  FolderLock lock(folder);
  if (flock(folder, LOCK_EX) != 0) return Failure("lock the folder", path);
  return lock;
}

FolderLock::~FolderLock() {
  if (folder_ >= 0) close(folder_);
}

}  // namespace backboned::cli
