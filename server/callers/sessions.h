// Client processes, and what they leave behind.

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

// Knows which sessions live, and what each owns that dies with it. A session is
// known by its id and its principal: nobody keeps another's alive. It lives
// while a call of it is in flight, and as long as it owns something until the
// TTL after its last call; so a client that leaves nothing takes no place.
//
// It has no clock: a call ends at the latest time that any method was told, so
// a sweeper that calls TakeExpired every few seconds is what ends sessions,
// early by one of its intervals at most.
//
// Thread-safe. Must outlive its calls.
class Sessions {
 public:
  using Call = SessionCall;

  // A session that is over.
  struct Expired {
    std::string id;
    std::string principal;
    std::vector<std::string>
        instances;  // What it had adopted and not given away.
  };

  // Says whether a session owns something besides instances.
  using OwnsMore = std::function<bool(const Payer&)>;

  // Sessions end `ttl` after their last call; at most `max_sessions` live, and
  // of a principal its part of them. `owns_more` is called with a lock held:
  // it must not come back here. Empty: they own instances only.
  Sessions(absl::Duration ttl, int64_t max_sessions, const Quotas& quotas = {},
           OwnsMore owns_more = {});

  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  // Keeps the session alive, or starts it, until the returned call is gone. An
  // empty `id` stands for a client without session: the call belongs to none.
  //
  // Returns kResourceExhausted (LimitReached `max-sessions`) for a new session
  // over the limit or its principal's part, once those that own nothing any
  // more have made room.
  absl::StatusOr<SessionCall> Begin(std::string_view id,
                                    std::string_view principal, absl::Time now);

  // Keeps the session alive, if it lives, as a call that begins and ends now
  // does: its client is there, though its call is refused.
  void Touch(std::string_view id, std::string_view principal, absl::Time now);

  // Makes `instance` die with the session; best its full name or uid, as the
  // sweeper needs it. An instance has one owner: the last who adopted it.
  //
  // Returns kFailedPrecondition if the session does not live. While a call of
  // it does, it lives.
  absl::Status Adopt(std::string_view id, std::string_view principal,
                     std::string_view instance);

  // Forgets who owns `instance`, as it is deleted. Without effect if nobody
  // does.
  void Disown(std::string_view instance);

  // Ends the sessions whose last call ended the TTL ago, and returns them.
  std::vector<Expired> TakeExpired(absl::Time now);

  // Sessions that live.
  int64_t count() const;

 private:
  friend SessionCall;

  using Key = std::pair<std::string, std::string>;  // Id and principal.

  struct Session {
    Budget::Reservation place;
    int64_t call_count = 0;     // In flight.
    absl::Time last_used = {};  // Meant while no call is in flight.
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
