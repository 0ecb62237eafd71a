// Names of those who call.

#ifndef BACKBONED_BASE_PRINCIPALS_H_
#define BACKBONED_BASE_PRINCIPALS_H_

#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace backboned {

// The principal of everybody at an address that names no other: a trusted
// person, who is an admin.
inline constexpr std::string_view kLocalPrincipal = "local";

// The owner of the instances that are hosted from the start.
inline constexpr std::string_view kServerPrincipal = "server";

// Returns kInvalidArgument unless `name` may be a person's or a program's:
// [a-z0-9][a-z0-9_.-]{0,63}, and neither `local` nor `server`.
absl::Status CheckPrincipal(std::string_view name);

// A number of each principal that has one. Copies are one and the same, so that
// whoever holds one sees the change of another. Thread-safe.
class NumberByPrincipal {
 public:
  using Numbers = std::map<std::string, double, std::less<>>;

  NumberByPrincipal() = default;
  NumberByPrincipal(std::initializer_list<Numbers::value_type> numbers);

  // Returns the principal's number, if it has one.
  std::optional<double> Find(std::string_view principal) const;

  // Returns all, or replaces all.
  Numbers All() const;
  void Set(Numbers numbers);

 private:
  struct State {
    absl::Mutex mutex;
    Numbers numbers ABSL_GUARDED_BY(mutex);
  };

  std::shared_ptr<State> state_ = std::make_shared<State>();
};

}  // namespace backboned

#endif  // BACKBONED_BASE_PRINCIPALS_H_
