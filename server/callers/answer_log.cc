#include "server/callers/answer_log.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

// The bytes of an answer without its tensors, names and places included.
int64_t HeaderBytes(const Answer& answer) {
  constexpr int64_t kEntryBytes = 512;
  return kEntryBytes + static_cast<int64_t>(answer.header.size());
}

void HappenAll(const std::vector<std::shared_ptr<Event>>& events) {
  for (const auto& event : events) event->Happen();
}

Payer PayerOf(const RequestKey& key) { return {key.principal, key.session}; }

}  // namespace

void AnswerTicket::Record(Answer answer, absl::Time now) {
  AnswerLog* const log = owner();
  if (log != nullptr) log->Record(Take(), std::move(answer), now);
}

AnswerLog::AnswerLog(const Limits& limits) : limits_(limits) {}

Task<absl::StatusOr<AnswerLog::Attempt>> AnswerLog::Begin(
    RequestKey key, std::string fingerprint, absl::Time now,
    AttemptCaller caller) {
  if (key.request_id.empty()) co_return AnswerTicket();
  DropExpired(now);
  const uint64_t attempt = ++attempts_;
  while (true) {
    const auto ended = std::make_shared<Event>();
    absl::StatusOr<std::optional<Attempt>> begun =
        TryBegin(key, fingerprint, attempt, caller, ended);
    if (!begun.ok()) co_return begun.status();
    if (begun->has_value()) co_return **std::move(begun);
    const std::stop_callback stopped(caller.stop, [ended] { ended->Happen(); });
    Event& end = *ended;  // GCC 12 would copy the operand `*ended`.
    co_await end;
    const absl::Status still = caller.wanted();
    if (absl::IsDeadlineExceeded(still)) {
      co_return absl::DeadlineExceededError(absl::StrCat(
          "the first attempt of request_id ", Quote(key.request_id),
          " has not ended yet; retry with the same request_id"));
    }
    if (!still.ok()) co_return still;
  }
}

// Returns nothing if an earlier attempt is in flight: then `ended` happens at
// its end.
absl::StatusOr<std::optional<AnswerLog::Attempt>> AnswerLog::TryBegin(
    const RequestKey& key, const std::string& fingerprint, uint64_t attempt,
    const AttemptCaller& caller, const std::shared_ptr<Event>& ended) {
  absl::MutexLock lock(&mutex_);
  auto [found, is_new] = entries_.try_emplace(key);
  Entry& entry = found->second;
  if (is_new) {
    entry.fingerprint = fingerprint;
    entry.attempt = attempt;
    entry.give_way = caller.give_way;
    return AnswerTicket(this, key);
  }
  if (entry.fingerprint != fingerprint) {
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kRequestIdReused,
        absl::StrCat("request_id ", Quote(key.request_id),
                     " was used for another request; choose a new one"));
  }
  if (entry.recorded) return entry.answer;
  if (entry.attempt < attempt) entry.give_way();
  entry.awaited.push_back(ended);
  return std::nullopt;
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
  return bytes_.all().header;
}

int64_t AnswerLog::payload_bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_.all().payload;
}

void AnswerLog::Record(const RequestKey& key, Answer answer, absl::Time now) {
  Payloads dead;  // Destroyed after the lock.
  std::shared_ptr<const void> too_large;
  std::vector<std::shared_ptr<Event>> awaited;
  const absl::Cleanup ended = [&awaited] { HappenAll(awaited); };
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  Entry& entry = found->second;
  const RequestKey* const kept = &found->first;
  Share& share = sessions_[PayerOf(*kept)];
  entry.recorded = true;
  entry.give_way = nullptr;
  awaited.swap(entry.awaited);
  entry.expires = now + limits_.ttl;
  entry.answer.answer = std::move(answer);
  entry.place = oldest_first_.insert(oldest_first_.end(), kept);
  entry.place_of_session =
      share.oldest_first.insert(share.oldest_first.end(), kept);
  Count(*kept, HeaderBytes(entry.answer.answer), 0);
  if (entry.answer.answer.payload != nullptr) {
    entry.place_of_payload =
        share.with_payload.insert(share.with_payload.end(), kept);
    Count(*kept, 0, entry.answer.answer.payload_bytes);
  }
  if (entry.answer.answer.payload_bytes > limits_.max_payload_bytes) {
    // Rather than everything else.
    too_large = DropPayload(*kept, entry, share);
  }
  dead = Evict(now);
}

void AnswerLog::GiveBack(const RequestKey& key) {
  std::vector<std::shared_ptr<Event>> awaited;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = entries_.find(key);
    awaited.swap(found->second.awaited);
    entries_.erase(found);
  }
  HappenAll(awaited);
}

// Forgets answers or tensors over a limit and returns the tensors.
AnswerLog::Payloads AnswerLog::Evict(absl::Time now) {
  Payloads dead;
  while (!oldest_first_.empty() &&
         now >= entries_.at(*oldest_first_.front()).expires) {
    dead.push_back(Forget(*oldest_first_.front()));
  }
  while (std::ssize(oldest_first_) > limits_.max_count ||
         bytes_.all().header > limits_.max_header_bytes) {
    const Share& share = Largest(&Bytes::header);
    dead.push_back(Forget(*share.oldest_first.front()));
  }
  while (bytes_.all().payload > limits_.max_payload_bytes) {
    Share& share = Largest(&Bytes::payload);
    const RequestKey& oldest = *share.with_payload.front();
    dead.push_back(DropPayload(oldest, entries_.at(oldest), share));
  }
  bytes_.ForgetIdle();
  return dead;
}

// Finds the session that has most of `bytes`, of the principal that has most.
// Looks at each session, which is little beside the cost of one request.
AnswerLog::Share& AnswerLog::Largest(int64_t Bytes::*bytes) {
  return std::ranges::max_element(
             sessions_, {},
             [this, bytes](const auto& named) {
               mutex_.AssertHeld();
               return std::pair(
                   bytes_.Get(LimitScope::kPrincipal, named.first).*bytes,
                   bytes_.Get(LimitScope::kSession, named.first).*bytes);
             })
      ->second;
}

void AnswerLog::Count(const RequestKey& key, int64_t header_bytes,
                      int64_t payload_bytes) {
  for (Bytes* bytes : bytes_.Of(PayerOf(key))) {
    bytes->header += header_bytes;
    bytes->payload += payload_bytes;
  }
}

// Forgets the recorded answer of `key`, and returns its tensors.
std::shared_ptr<const void> AnswerLog::Forget(const RequestKey& key) {
  const auto found = entries_.find(key);
  Entry& entry = found->second;
  const auto session = sessions_.find(PayerOf(key));
  std::shared_ptr<const void> dead = DropPayload(key, entry, session->second);
  session->second.oldest_first.erase(entry.place_of_session);
  if (session->second.oldest_first.empty()) sessions_.erase(session);
  Count(key, -HeaderBytes(entry.answer.answer), 0);
  oldest_first_.erase(entry.place);
  entries_.erase(found);  // This frees `key` too.
  return dead;
}

// Takes the tensors, if any, of an answer in `share`.
std::shared_ptr<const void> AnswerLog::DropPayload(const RequestKey& key,
                                                   Entry& entry, Share& share) {
  RecordedAnswer& recorded = entry.answer;
  if (recorded.answer.payload == nullptr) return nullptr;
  recorded.payload_expired = true;
  share.with_payload.erase(entry.place_of_payload);
  Count(key, 0, -std::exchange(recorded.answer.payload_bytes, 0));
  return std::exchange(recorded.answer.payload, nullptr);
}

}  // namespace backboned
