#include "server/sessions.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "backbones/errors.h"

namespace backboned {
namespace {

// Sessions end by the minute.
constexpr absl::Duration kSessionRetryDelay = absl::Minutes(1);

}  // namespace

SessionCall::SessionCall(SessionCall&& other) noexcept
    : sessions_(std::exchange(other.sessions_, nullptr)),
      key_(std::move(other.key_)) {}

SessionCall& SessionCall::operator=(SessionCall&& other) noexcept {
  std::swap(sessions_, other.sessions_);
  std::swap(key_, other.key_);
  return *this;
}

SessionCall::~SessionCall() {
  if (sessions_ != nullptr) sessions_->End(key_);
}

Sessions::Sessions(absl::Duration ttl, int64_t max_sessions)
    : ttl_(ttl), max_sessions_(max_sessions) {}

absl::StatusOr<SessionCall> Sessions::Begin(std::string_view id,
                                            std::string_view principal,
                                            absl::Time now) {
  if (id.empty()) return SessionCall();
  Key key(id, principal);
  absl::MutexLock lock(&mutex_);
  latest_ = std::max(latest_, now);
  auto session = sessions_.find(key);
  if (session == sessions_.end()) {
    const auto live = static_cast<int64_t>(sessions_.size());
    if (live >= max_sessions_) {
      return LimitReached(
          {.name = "max-sessions",
           .value = max_sessions_,
           .requested = live + 1,
           .retry_delay = kSessionRetryDelay},
          absl::StrCat(live, " sessions live, the limit is ", max_sessions_));
    }
    session = sessions_.emplace(key, Session()).first;
  }
  ++session->second.call_count;
  return SessionCall(this, std::move(key));
}

absl::Status Sessions::Adopt(std::string_view id, std::string_view principal,
                             std::string_view instance) {
  const std::string name(instance);
  absl::MutexLock lock(&mutex_);
  const auto session = sessions_.find(Key(id, principal));
  if (session == sessions_.end()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no session '", absl::string_view(id.data(), id.size()), "' lives"));
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

void Sessions::End(const Key& key) {
  absl::MutexLock lock(&mutex_);
  Session& session = sessions_.at(key);
  --session.call_count;
  session.last_used = latest_;
}

void Sessions::Forget(const std::string& instance) {
  const auto owner = owners_.find(instance);
  if (owner == owners_.end()) return;
  sessions_.at(owner->second).instances.erase(instance);
  owners_.erase(owner);
}

}  // namespace backboned
