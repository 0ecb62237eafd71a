#include "client/cli/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "base/replace_file.h"

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

}  // namespace

absl::StatusOr<std::string> ReadText(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0) {
    return errno == ENOENT || errno == ENOTDIR
               ? absl::NotFoundError(absl::StrCat("there is no file ", path))
               : Failure("read", path);
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
  const absl::Status status = ReplaceFile(path, text, mode);
  if (!status.ok()) return status;
  return true;
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
