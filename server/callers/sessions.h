// Tracks client processes, and drops what they leave behind.

#ifndef BACKBONED_SERVER_CALLERS_SESSIONS_H_
#define BACKBONED_SERVER_CALLERS_SESSIONS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/token.h"
#include "server/limits/budget.h"
#include "server/limits/quotas.h"

namespace backboned {

class Sessions;

// A call of a session in flight: the session lives at least as long. An empty
// one belongs to no session. Not thread-safe.
using SessionCall = Token<Sessions, std::pair<std::string, std::string>>;

// Tracks living sessions, by id and principal, and the instances that die with
// each. No principal keeps another's sessions alive. A session lives while one
// of its calls is in flight, and, if it owns something, until the TTL after its
// last call; so a client that leaves nothing takes no place.
//
// Has no clock: a call ends at the latest time that any method was given. So
// sessions end when a sweeper calls TakeExpired, every few seconds, early by at
// most one of these intervals.
//
// Thread-safe. Must outlive its calls.
class Sessions {
 public:
  using Call = SessionCall;

  // A session that has ended.
  struct Expired {
    std::string id;
    std::string principal;
    std::vector<std::string>
        instances;  // Instances that it had adopted and still owned.
  };

  // Returns whether a session owns something besides instances.
  using OwnsMore = std::function<bool(const Payer&)>;

  // Sessions end `ttl` after their last call; at most `max_sessions` live, and
  // of each principal its part of them. `owns_more` is called with a lock held:
  // it must not call this object.
  Sessions(absl::Duration ttl, int64_t max_sessions, const Quotas& quotas,
           OwnsMore owns_more);

  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  // Starts the session or keeps it alive until the returned call is gone. An
  // empty `id` stands for a client without a session: the call belongs to none.
  //
  // Returns kResourceExhausted (LimitReached `max-sessions`) for a new session
  // over the limit or its principal's part, after sessions that own nothing any
  // more have been dropped.
  absl::StatusOr<SessionCall> Begin(std::string_view id,
                                    std::string_view principal, absl::Time now);

  // Keeps a living session alive, like a call that begins and ends now: its
  // client is there, though its call is refused.
  void Touch(std::string_view id, std::string_view principal, absl::Time now);

  // Makes `instance` die with the session. Name it by full name or uid, as the
  // sweeper needs. An instance has one owner: the last one that adopted it.
  //
  // Returns kFailedPrecondition if the session does not live. It lives while
  // one of its calls does.
  absl::Status Adopt(std::string_view id, std::string_view principal,
                     std::string_view instance);

  // Forgets the owner of `instance`, which is being deleted. Does nothing if
  // there is none.
  void Disown(std::string_view instance);

  // Ends the sessions whose last call ended `ttl` ago, and returns them.
  std::vector<Expired> TakeExpired(absl::Time now);

  // The number of living sessions.
  int64_t count() const;

 private:
  friend SessionCall;

  using Key = std::pair<std::string, std::string>;  // Id and principal.

  struct Session {
    Budget::Reservation place;
    int64_t call_count = 0;     // In flight.
    absl::Time last_used = {};  // Valid while no call is in flight.
    std::set<std::string> instances = {};
  };

  void GiveBack(const Key& key);  // Of a call that ends.
  bool IsIdleAndOwnsNothing(const Key& key, const Session& session) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Budget::Reservation> MakePlace(const std::string& principal)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(const std::string& instance)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration ttl_;
  const OwnsMore owns_more_;
  Budget places_;

  mutable absl::Mutex mutex_;
  std::map<Key, Session> sessions_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<std::string, Key> owners_
      ABSL_GUARDED_BY(mutex_);  // By instance.
  absl::Time latest_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_CALLERS_SESSIONS_H_
