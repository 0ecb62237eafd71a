// Records answers by request id, so that a retried change is applied once.

#ifndef BACKBONED_SERVER_CALLERS_ANSWER_LOG_H_
#define BACKBONED_SERVER_CALLERS_ANSWER_LOG_H_

#include <atomic>
#include <compare>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/task.h"
#include "base/token.h"
#include "server/limits/continuation.h"
#include "server/limits/ledger.h"
#include "server/limits/quotas.h"

namespace backboned {

// The name of a request. Ids are private to a session, so that two scripts
// which count "1", "2", ... do not get each other's answers; callers without a
// session share one session of their principal.
struct RequestKey {
  std::string principal;
  std::string method;
  std::string request_id;  // Chosen by the client. Empty: no id.
  std::string session = {};

  auto operator<=>(const RequestKey&) const = default;
};

// The answer to a request.
struct Answer {
  // The encoded answer without its tensors.
  std::string header;
  // The tensors that follow the header, if any.
  std::shared_ptr<const void> payload = nullptr;
  // The size of the memory that `payload` keeps alive.
  int64_t payload_bytes = 0;
};

// The caller of an attempt.
struct AttemptCaller {
  // Ends the wait for an earlier attempt, with the error of `wanted`.
  std::stop_token stop = {};
  std::function<absl::Status()> wanted = absl::OkStatus;
  // Called by later attempts until the ticket is gone: if this attempt has
  // changed nothing yet, it should end, since its client may be dead. Must
  // not call the log.
  std::function<void()> give_way = [] {};
};

class AnswerLog;

// The right to run a request for the first time. If no answer is recorded
// before its end, the next attempt runs anew. Not thread-safe.
class AnswerTicket : public Token<AnswerLog, RequestKey> {
 public:
  using Token::Token;

  // Keeps `answer` for retries of the request. Record it as soon as the change
  // is made, before the answer is sent. Does nothing for a request without an
  // id, whose ticket is empty.
  void Record(Answer answer, absl::Time now);
};

// The answer to an earlier attempt; without tensors if it had none.
struct RecordedAnswer {
  Answer answer;
  bool payload_expired = false;  // The answer's tensors are no longer kept.
};

// Remembers answers for a time, within limits of count and bytes.
//
// Over the count, or the bytes of their headers, the oldest answer of the
// session that has most, of the principal that has most, is forgotten, so that
// one that floods forgets its own. Over the bytes of tensors the oldest tensors
// of the session that has most of them go likewise, while their headers stay.
//
// Thread-safe. Must outlive its tickets.
class AnswerLog {
 public:
  struct Limits {
    int64_t max_count = 16384;
    int64_t max_header_bytes = int64_t{64} << 20;
    int64_t max_payload_bytes = int64_t{512} << 20;
    absl::Duration ttl = absl::Minutes(10);  // Since Record.
  };

  // An earlier attempt's answer, or the right to run the request.
  using Attempt = std::variant<RecordedAnswer, AnswerTicket>;

  explicit AnswerLog(const Limits& limits);

  AnswerLog(const AnswerLog&) = delete;
  AnswerLog& operator=(const AnswerLog&) = delete;

  // Gives whether the request `key` is to be run; `fingerprint` is a digest of
  // its content. If an earlier attempt runs, asks that attempt to give way and
  // awaits its end.
  //
  // Gives kInvalidArgument (kRequestIdReused) if the id was used with another
  // fingerprint, or the error of `caller.wanted`.
  Task<absl::StatusOr<Attempt>> Begin(RequestKey key, std::string fingerprint,
                                      absl::Time now,
                                      AttemptCaller caller = {});

  // Forgets expired answers. Begin and Record do so too.
  void DropExpired(absl::Time now);

  // The number of kept answers, and the bytes of their headers and tensors.
  int64_t count() const;
  int64_t header_bytes() const;
  int64_t payload_bytes() const;

 private:
  friend class AnswerTicket;
  friend class Token<AnswerLog, RequestKey>;

  // Keys of `entries_`.
  using Queue = std::list<const RequestKey*>;
  struct Entry {
    std::string fingerprint;
    bool recorded = false;  // False: an attempt is in flight.
    uint64_t attempt = 0;   // Later attempts have higher numbers.
    // Both while the attempt is in flight.
    std::function<void()> give_way;
    std::vector<std::shared_ptr<Event>> awaited;  // They happen at its end.
    // Valid if `recorded`, like all members below.
    RecordedAnswer answer;
    absl::Time expires;
    Queue::iterator place;             // In `oldest_first_`.
    Queue::iterator place_of_session;  // In its session's `oldest_first`.
    Queue::iterator place_of_payload;  // In `with_payload`, if it has one.
  };
  using Entries = std::map<RequestKey, Entry>;
  // The answers of a session, the oldest first.
  struct Share {
    Queue oldest_first;
    Queue with_payload;  // Those with tensors.
  };
  struct Bytes {
    int64_t header = 0;
    int64_t payload = 0;

    bool operator==(const Bytes&) const = default;
  };
  using Payloads = std::vector<std::shared_ptr<const void>>;

  void Record(const RequestKey& key, Answer answer, absl::Time now);
  void GiveBack(const RequestKey& key);  // Without an answer.
  absl::StatusOr<std::optional<Attempt>> TryBegin(
      const RequestKey& key, const std::string& fingerprint, uint64_t attempt,
      const AttemptCaller& caller, const std::shared_ptr<Event>& ended);
  std::shared_ptr<const void> DropPayload(const RequestKey& key, Entry& entry,
                                          Share& share)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<const void> Forget(const RequestKey& key)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Share& Largest(int64_t Bytes::*bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Count(const RequestKey& key, int64_t header_bytes, int64_t payload_bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Payloads Evict(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Limits limits_;

  mutable absl::Mutex mutex_;
  std::atomic<uint64_t> attempts_ = 0;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  // The keys with a recorded answer: of all sessions, and by session.
  Queue oldest_first_ ABSL_GUARDED_BY(mutex_);
  std::map<Payer, Share> sessions_ ABSL_GUARDED_BY(mutex_);
  Ledger<Bytes> bytes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_CALLERS_ANSWER_LOG_H_
