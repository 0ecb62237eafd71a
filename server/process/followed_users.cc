#include "server/process/followed_users.h"

#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <cstdint>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "server/callers/audit.h"

namespace backboned {
namespace {

// Records what the change of the users changes for each.
void Record(const Users& before, const Users& after) {
  for (const auto& [name, user] : before) {
    if (!after.contains(name)) {
      Audit({{"event", "user removed"}, {"principal", name}});
    }
  }
  for (const auto& [name, user] : after) {
    const auto old = before.find(name);
    if (old != before.end() && old->second == user) continue;
    Audit({{"event", old == before.end() ? "user added" : "user changed"},
           {"principal", name},
           {"rights", NameOf(user.rights)}});
  }
}

}  // namespace

FollowedUsers::FollowedUsers(std::string path, Directory& directory)
    : path_(std::move(path)), directory_(directory) {}

absl::Status FollowedUsers::Read() {
  mark_ = MarkOfFile();
  absl::StatusOr<Users> users = ReadUsers(path_);
  if (!users.ok()) return users.status();
  directory_.SetUsers(*users);
  Record(std::exchange(users_, *users), *users);
  return absl::OkStatus();
}

void FollowedUsers::Follow(bool anyway) {
  if (!anyway && MarkOfFile() == mark_) return;
  const absl::Status read = Read();
  if (read.ok()) {
    spdlog::info("users file read: {} users", users_.size());
    return;
  }
  const std::string_view why(read.message().data(), read.message().size());
  spdlog::warn("the users stay as they were: {}", why);
}

FollowedUsers::Mark FollowedUsers::MarkOfFile() const {
  struct stat file = {};
  if (stat(path_.c_str(), &file) != 0) return {};
  return {file.st_dev, file.st_ino, file.st_size, file.st_mtim.tv_sec,
          file.st_mtim.tv_nsec};
}

}  // namespace backboned
