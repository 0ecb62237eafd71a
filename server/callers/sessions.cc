#include "server/callers/sessions.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

// Sessions usually end within minutes.
constexpr absl::Duration kSessionRetryDelay = absl::Minutes(1);

}  // namespace

Sessions::Sessions(absl::Duration ttl, int64_t max_sessions,
                   const Quotas& quotas, OwnsMore owns_more)
    : ttl_(ttl),
      owns_more_(std::move(owns_more)),
      places_({.name = "max-sessions",
               .unit = "session",
               .limit = max_sessions,
               .quotas = {.principals = quotas.principals},
               .retry_delay = kSessionRetryDelay}) {}

absl::StatusOr<SessionCall> Sessions::Begin(std::string_view id,
                                            std::string_view principal,
                                            absl::Time now) {
  if (id.empty()) return SessionCall();
  Key key(id, principal);
  absl::MutexLock lock(&mutex_);
  latest_ = std::max(latest_, now);
  auto session = sessions_.find(key);
  if (session == sessions_.end()) {
    absl::StatusOr<Budget::Reservation> place = MakePlace(key.second);
    if (!place.ok()) return place.status();
    session = sessions_.emplace(key, Session{.place = *std::move(place)}).first;
  }
  ++session->second.call_count;
  return SessionCall(this, std::move(key));
}

void Sessions::Touch(std::string_view id, std::string_view principal,
                     absl::Time now) {
  absl::MutexLock lock(&mutex_);
  latest_ = std::max(latest_, now);
  const auto session = sessions_.find(Key(id, principal));
  if (session != sessions_.end()) session->second.last_used = latest_;
}

absl::Status Sessions::Adopt(std::string_view id, std::string_view principal,
                             std::string_view instance) {
  const std::string name(instance);
  absl::MutexLock lock(&mutex_);
  const auto session = sessions_.find(Key(id, principal));
  if (session == sessions_.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat("session ", Quote(id), " has ended"));
  }
  Forget(name);
  session->second.instances.insert(name);
  owners_.emplace(name, session->first);
  return absl::OkStatus();
}

void Sessions::Disown(std::string_view instance) {
  absl::MutexLock lock(&mutex_);
  Forget(std::string(instance));
}

std::vector<Sessions::Expired> Sessions::TakeExpired(absl::Time now) {
  std::vector<Expired> expired;
  absl::MutexLock lock(&mutex_);
  latest_ = std::max(latest_, now);
  for (auto next = sessions_.begin(); next != sessions_.end();) {
    const auto current = next++;
    const auto& [key, session] = *current;
    if (session.call_count > 0 || now < session.last_used + ttl_) continue;
    for (const std::string& instance : session.instances) {
      owners_.erase(instance);
    }
    expired.push_back(
        {.id = key.first,
         .principal = key.second,
         .instances = {session.instances.begin(), session.instances.end()}});
    sessions_.erase(current);
  }
  return expired;
}

int64_t Sessions::count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(sessions_.size());
}

void Sessions::GiveBack(const Key& key) {
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(key);
  Session& session = found->second;
  --session.call_count;
  session.last_used = latest_;
  if (IsIdleAndOwnsNothing(key, session)) sessions_.erase(found);
}

bool Sessions::IsIdleAndOwnsNothing(const Key& key,
                                    const Session& session) const {
  return session.call_count == 0 && session.instances.empty() &&
         !owns_more_({key.second, key.first});
}

// Makes a place for a new session. Sessions may have lost all that they owned
// without a call of theirs: they are looked for only if no place is left.
absl::StatusOr<Budget::Reservation> Sessions::MakePlace(
    const std::string& principal) {
  absl::StatusOr<Budget::Reservation> place = places_.Reserve({principal}, 1);
  if (place.ok()) return place;
  std::erase_if(sessions_, [this](const auto& each) {
    mutex_.AssertHeld();
    return IsIdleAndOwnsNothing(each.first, each.second);
  });
  return places_.Reserve({principal}, 1);
}

void Sessions::Forget(const std::string& instance) {
  const auto owner = owners_.find(instance);
  if (owner == owners_.end()) return;
  sessions_.at(owner->second).instances.erase(instance);
  owners_.erase(owner);
}

}  // namespace backboned
