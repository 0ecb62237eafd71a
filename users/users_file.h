// The people and programs that may call a server, from a file of YAML.

#ifndef BACKBONED_USERS_USERS_FILE_H_
#define BACKBONED_USERS_USERS_FILE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace backboned {

// The rights that a user may have. Each has those before it, too.
enum class Rights {
  kInfer,  // Reads instances, and computes with them.
  kTrain,  // Has instances of its own, and changes them.
  kAdmin,  // Uses and changes everybody's.
};

// Returns the word of the file for it: `infer`, `train` or `admin`.
std::string_view NameOf(Rights rights);

// One user. All but the rights is optional in the file.
struct User {
  Rights rights = Rights::kTrain;
  // Its weight where device time is shared, in [0.001, 1000].
  std::optional<double> share = {};
  // The part of each limit that it may use, in (0, 1].
  std::optional<double> quota = {};
  // Its Unix account. Absent: the one of the user's name, if there is one.
  std::optional<std::string> account = {};
  // The serial number of the token that it may use, at least 1. Absent: none.
  std::optional<int64_t> token = {};
  // The time from which on it may not call. The file has a day in UTC,
  // `2027-03-31`, which is the last one, or a time, `2027-03-31T12:00:00Z`.
  std::optional<absl::Time> expires = {};

  bool operator==(const User&) const = default;
};

// By the name, which is the principal (CheckPrincipal).
using Users = std::map<std::string, User>;

// Reads the end of a user's time, as the file has it. Returns kInvalidArgument,
// which says what is allowed.
absl::StatusOr<absl::Time> ParseExpires(const std::string& text);

// Returns it as the file has it: the last day, if it ends with one, else the
// time.
std::string FormatExpires(absl::Time expires);

// Reads the text of a users file:
//
//     users:
//       alice: {rights: train, share: 2, quota: 0.5, account: amiller, token:
//       3} bob:
//
// Returns kInvalidArgument, which names the line and what is allowed there.
absl::StatusOr<Users> ParseUsers(const std::string& text);

// Reads a users file of at most 1 MiB. Returns also kNotFound or
// kFailedPrecondition if it cannot be read. The message names the file.
absl::StatusOr<Users> ReadUsers(const std::string& path);

// Writes a users file, by a rename: a reader finds the old file or the new one.
// The file keeps its mode; a new one is its owner's alone. Comments are lost.
// Returns kFailedPrecondition if it cannot be written.
absl::Status WriteUsers(const std::string& path, const Users& users);

}  // namespace backboned

#endif  // BACKBONED_USERS_USERS_FILE_H_
