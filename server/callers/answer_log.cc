#include "server/callers/answer_log.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

// How often a waiting retry looks whether its client is still there.
constexpr absl::Duration kWantedPoll = absl::Milliseconds(20);

// What an answer takes besides its tensors, names and places included.
int64_t HeaderBytes(const Answer& answer) {
  constexpr int64_t kEntryBytes = 512;
  return kEntryBytes + static_cast<int64_t>(answer.header.size());
}

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
    const std::function<absl::Status()>& wanted,
    std::function<void()> give_way) {
  if (key.request_id.empty()) return AnswerTicket(nullptr, key);
  Payloads dead;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  dead = Evict(now);
  const uint64_t attempt = ++attempts_;
  while (true) {
    auto [found, is_new] = entries_.try_emplace(key);
    Entry& entry = found->second;
    if (is_new) {
      entry.fingerprint = fingerprint;
      entry.attempt = attempt;
      entry.give_way = std::move(give_way);
      return AnswerTicket(this, key);
    }
    if (entry.fingerprint != fingerprint) {
      return Error(absl::StatusCode::kInvalidArgument, Reason::kRequestIdReused,
                   absl::StrCat("request id '", key.request_id,
                                "' was used for another request"));
    }
    if (entry.recorded) return entry.answer;
    if (entry.attempt < attempt) entry.give_way();
    absl::Status waited = WaitForEnd(key, wanted);
    if (!waited.ok()) return waited;
  }
}

void AnswerLog::DropExpired(absl::Time now) {
  Payloads dead;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  dead = Evict(now);
}

int64_t AnswerLog::count() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(oldest_first_.size());
}

int64_t AnswerLog::header_bytes() const {
  absl::MutexLock lock(&mutex_);
  return header_bytes_;
}

int64_t AnswerLog::payload_bytes() const {
  absl::MutexLock lock(&mutex_);
  return payload_bytes_;
}

void AnswerLog::Record(const RequestKey& key, Answer answer, absl::Time now) {
  Payloads dead;  // Destroyed after the lock.
  std::shared_ptr<const void> too_large;
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  Entry& entry = found->second;
  const RequestKey* const kept = &found->first;
  Share& share = sessions_[{kept->principal, kept->session}];
  entry.recorded = true;
  entry.give_way = nullptr;
  entry.expires = now + limits_.ttl;
  entry.answer.answer = std::move(answer);
  entry.place = oldest_first_.insert(oldest_first_.end(), kept);
  entry.place_of_session =
      share.oldest_first.insert(share.oldest_first.end(), kept);
  share.header_bytes += HeaderBytes(entry.answer.answer);
  header_bytes_ += HeaderBytes(entry.answer.answer);
  if (entry.answer.answer.payload != nullptr) {
    entry.place_of_payload =
        share.with_payload.insert(share.with_payload.end(), kept);
    share.payload_bytes += entry.answer.answer.payload_bytes;
    payload_bytes_ += entry.answer.answer.payload_bytes;
  }
  if (entry.answer.answer.payload_bytes > limits_.max_payload_bytes) {
    too_large = DropPayload(entry, share);  // Rather than everything else.
  }
  dead = Evict(now);
  ended_.SignalAll();
}

void AnswerLog::Abandon(const RequestKey& key) {
  absl::MutexLock lock(&mutex_);
  entries_.erase(key);
  ended_.SignalAll();
}

// Waits until an attempt ended, which need not be that of `key`, or for a
// short time, and asks whether the answer is still wanted.
absl::Status AnswerLog::WaitForEnd(
    const RequestKey& key, const std::function<absl::Status()>& wanted) {
  ended_.WaitWithTimeout(&mutex_, kWantedPoll);
  mutex_.Unlock();  // It takes some time to ask.
  const absl::Status still = wanted();
  mutex_.Lock();
  if (!absl::IsDeadlineExceeded(still)) return still;
  return absl::DeadlineExceededError(
      absl::StrCat("the first attempt of request id '", key.request_id,
                   "' has not ended yet"));
}

// Forgets what is over a limit and returns its tensors.
AnswerLog::Payloads AnswerLog::Evict(absl::Time now) {
  Payloads dead;
  while (!oldest_first_.empty() &&
         now >= entries_.at(*oldest_first_.front()).expires) {
    dead.push_back(Forget(*oldest_first_.front()));
  }
  while (std::ssize(oldest_first_) > limits_.max_count ||
         header_bytes_ > limits_.max_header_bytes) {
    const Share& share = Largest(&Share::header_bytes);
    dead.push_back(Forget(*share.oldest_first.front()));
  }
  while (payload_bytes_ > limits_.max_payload_bytes) {
    Share& share = Largest(&Share::payload_bytes);
    dead.push_back(
        DropPayload(entries_.at(*share.with_payload.front()), share));
  }
  return dead;
}

// What the session has that has most of `bytes`. Looks at each session, which
// is little beside what one request costs.
AnswerLog::Share& AnswerLog::Largest(int64_t Share::*bytes) {
  return std::ranges::max_element(
             sessions_, {},
             [bytes](const auto& named) { return named.second.*bytes; })
      ->second;
}

// Forgets a recorded answer, which `key` is of, and returns its tensors.
std::shared_ptr<const void> AnswerLog::Forget(const RequestKey& key) {
  const auto found = entries_.find(key);
  Entry& entry = found->second;
  const auto session = sessions_.find({key.principal, key.session});
  std::shared_ptr<const void> dead = DropPayload(entry, session->second);
  session->second.oldest_first.erase(entry.place_of_session);
  session->second.header_bytes -= HeaderBytes(entry.answer.answer);
  if (session->second.oldest_first.empty()) sessions_.erase(session);
  header_bytes_ -= HeaderBytes(entry.answer.answer);
  oldest_first_.erase(entry.place);
  entries_.erase(found);  // And `key` with it.
  return dead;
}

// Takes the tensors of an answer of `share` away, if it has any.
std::shared_ptr<const void> AnswerLog::DropPayload(Entry& entry, Share& share) {
  RecordedAnswer& recorded = entry.answer;
  if (recorded.answer.payload == nullptr) return nullptr;
  recorded.payload_expired = true;
  share.with_payload.erase(entry.place_of_payload);
  share.payload_bytes -= recorded.answer.payload_bytes;
  payload_bytes_ -= std::exchange(recorded.answer.payload_bytes, 0);
  return std::exchange(recorded.answer.payload, nullptr);
}

}  // namespace backboned
