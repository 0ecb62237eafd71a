#include "server/answers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "backbones/errors.h"

namespace backboned {
namespace {

// How often a waiting retry looks whether its client is still there.
constexpr absl::Duration kCancelPoll = absl::Milliseconds(20);

}  // namespace

AnswerTicket::AnswerTicket(AnswerTicket&& other) noexcept
    : log_(std::exchange(other.log_, nullptr)), key_(std::move(other.key_)) {}

AnswerTicket& AnswerTicket::operator=(AnswerTicket&& other) noexcept {
  std::swap(log_, other.log_);
  std::swap(key_, other.key_);
  return *this;
}

AnswerTicket::~AnswerTicket() {
  if (log_ != nullptr) log_->Abandon(key_);
}

void AnswerTicket::Record(Answer answer, absl::Time now) {
  if (log_ == nullptr) return;
  std::exchange(log_, nullptr)->Record(key_, std::move(answer), now);
}

AnswerLog::AnswerLog(const Limits& limits) : limits_(limits) {}

absl::StatusOr<AnswerLog::Attempt> AnswerLog::Begin(
    const RequestKey& key, const std::string& fingerprint, absl::Time now,
    absl::Time deadline, const std::function<bool()>& cancelled) {
  if (key.request_id.empty()) return AnswerTicket(nullptr, key);
  Payloads dead;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  dead = Evict(now);
  while (true) {
    auto [entry, is_new] = entries_.try_emplace(key);
    if (is_new) {
      entry->second.fingerprint = fingerprint;
      return AnswerTicket(this, key);
    }
    if (entry->second.fingerprint != fingerprint) {
      return Error(absl::StatusCode::kInvalidArgument, Reason::kRequestIdReused,
                   absl::StrCat("request id '", key.request_id,
                                "' was used for another request"));
    }
    if (entry->second.recorded) return entry->second.answer;
    absl::Status waited = WaitForEnd(key, deadline, cancelled);
    if (!waited.ok()) return waited;
  }
}

int64_t AnswerLog::count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(oldest_first_.size());
}

int64_t AnswerLog::payload_bytes() const {
  absl::MutexLock lock(&mutex_);
  return payload_bytes_;
}

void AnswerLog::Record(const RequestKey& key, Answer answer, absl::Time now) {
  Payloads dead;  // Destroyed after the lock.
  std::shared_ptr<const void> too_large;
  absl::MutexLock lock(&mutex_);
  Entry& entry = entries_.at(key);
  entry.recorded = true;
  entry.expires = now + limits_.ttl;
  entry.answer.answer = std::move(answer);
  payload_bytes_ += entry.answer.answer.payload_bytes;
  if (entry.answer.answer.payload_bytes > limits_.max_payload_bytes) {
    too_large = DropPayload(entry);  // Rather than everybody else's.
  }
  oldest_first_.push_back(key);
  dead = Evict(now);
  ended_.SignalAll();
}

void AnswerLog::Abandon(const RequestKey& key) {
  absl::MutexLock lock(&mutex_);
  entries_.erase(key);
  ended_.SignalAll();
}

// Waits until an attempt ended, which need not be that of `key`.
absl::Status AnswerLog::WaitForEnd(const RequestKey& key, absl::Time deadline,
                                   const std::function<bool()>& cancelled) {
  if (cancelled && cancelled()) {
    return absl::CancelledError("the client cancelled the call");
  }
  const absl::Time now = absl::Now();
  if (now >= deadline) {
    return absl::DeadlineExceededError(
        absl::StrCat("the first attempt of request id '", key.request_id,
                     "' has not ended yet"));
  }
  const absl::Time poll =
      cancelled ? now + kCancelPoll : absl::InfiniteFuture();
  ended_.WaitWithDeadline(&mutex_, std::min(deadline, poll));
  return absl::OkStatus();
}

// Forgets what is over a limit and returns its tensors.
AnswerLog::Payloads AnswerLog::Evict(absl::Time now) {
  Payloads dead;
  while (!oldest_first_.empty()) {
    const auto oldest = entries_.find(oldest_first_.front());
    const auto count = static_cast<int64_t>(oldest_first_.size());
    if (count <= limits_.max_count && now < oldest->second.expires) break;
    dead.push_back(DropPayload(oldest->second));
    entries_.erase(oldest);
    oldest_first_.pop_front();
  }
  for (auto key = oldest_first_.begin();
       payload_bytes_ > limits_.max_payload_bytes; ++key) {
    dead.push_back(DropPayload(entries_.at(*key)));
  }
  return dead;
}

// Takes the tensors of an answer away, if it has any.
std::shared_ptr<const void> AnswerLog::DropPayload(Entry& entry) {
  RecordedAnswer& recorded = entry.answer;
  if (recorded.answer.payload != nullptr) recorded.payload_expired = true;
  payload_bytes_ -= std::exchange(recorded.answer.payload_bytes, 0);
  return std::exchange(recorded.answer.payload, nullptr);
}

}  // namespace backboned
