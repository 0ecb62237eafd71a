#include "server/process/ready_file.h"

#include <unistd.h>

#include <fstream>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/replace_file.h"

namespace backboned {

absl::StatusOr<ReadyFile> ReadyFile::Write(const std::string& path,
                                           const std::string& target) {
  std::string text = absl::StrCat("target: \"", target, "\"\n");
  absl::Status written = ReplaceFile(path, text);
  if (!written.ok()) return written;
  return ReadyFile(path, std::move(text));
}

ReadyFile::ReadyFile(std::string path, std::string text)
    : path_(std::move(path)), text_(std::move(text)) {}

ReadyFile::ReadyFile(ReadyFile&& other) noexcept
    : path_(std::exchange(other.path_, {})), text_(std::move(other.text_)) {}

ReadyFile::~ReadyFile() {
  if (path_.empty()) return;
  std::ifstream file(path_);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  if (text == text_) unlink(path_.c_str());
}

}  // namespace backboned
