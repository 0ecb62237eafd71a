// Follows the users file while the server runs.

#ifndef BACKBONED_SERVER_PROCESS_FOLLOWED_USERS_H_
#define BACKBONED_SERVER_PROCESS_FOLLOWED_USERS_H_

#include <string>
#include <tuple>

#include "absl/status/status.h"
#include "server/callers/directory.h"
#include "users/users_file.h"

namespace backboned {

// Reads the users file into a directory, again when another file has its name
// or it has other bytes. Not thread-safe.
class FollowedUsers {
 public:
  // `directory` must outlive this object.
  FollowedUsers(std::string path, Directory& directory);

  // Reads the file for the first time. Returns as ReadUsers.
  absl::Status Read();

  // Reads it again if it has changed, or in any case if `anyway`. The log says
  // what changed, or what is wrong; then all stays as it was.
  void Follow(bool anyway);

 private:
  // Of the file: device, inode, size, and the time of its last change in
  // seconds and nanoseconds. All 0: it is not there.
  using Mark = std::tuple<uint64_t, uint64_t, int64_t, int64_t, int64_t>;

  Mark MarkOfFile() const;

  const std::string path_;
  Directory& directory_;
  Mark mark_;
  Users users_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_FOLLOWED_USERS_H_
