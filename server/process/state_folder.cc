#include "server/process/state_folder.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace backboned {

absl::Status CheckStateFolder(const std::string& path) {
  std::string file = absl::StrCat(path, "/.backboned.XXXXXX");
  const int fd = mkstemp(file.data());
  if (fd < 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("--state-dir ", path, " is no folder in which user ",
                     geteuid(), " can write: ", std::strerror(errno)));
  }
  close(fd);
  unlink(file.c_str());
  return absl::OkStatus();
}

}  // namespace backboned
