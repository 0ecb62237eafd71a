// Stores the forwards that are kept for their backward.

#ifndef BACKBONED_SERVER_TAPES_TAPE_STORE_H_
#define BACKBONED_SERVER_TAPES_TAPE_STORE_H_

#include <cstdint>
#include <limits>
#include <memory>
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
#include "absl/types/span.h"
#include "base/token.h"
#include "server/limits/ledger.h"
#include "server/limits/quotas.h"
#include "server/tapes/tape.h"

namespace backboned {

class TapeStore;

// A place for one tape, held until the tape is put or this object is gone. Not
// thread-safe.
using TapeSlot = Token<TapeStore, Payer>;

// The exclusive use of tapes by one backward. Those that are not consumed go
// back to the store. Not thread-safe.
class TapeLease
    : public Token<TapeStore, std::vector<std::shared_ptr<const Tape>>> {
 public:
  using Token::Token;

  // The tapes, in the order of the requested ids.
  const std::vector<std::shared_ptr<const Tape>>& tapes() const {
    return right();
  }

  // Demotes those of the tapes that can be.
  void Demote();

  // Drops the tapes for good: they are used up. The lease is empty then.
  void Consume();
};

// Keeps tapes until they are used, released or expired, within limits of count
// and bytes for all, and each payer's part of them. A leased tape still counts,
// since its memory is still there.
//
// Over the bytes, tapes that are not leased are demoted, and the new one last,
// unless it does not fit alone: each gives up its graph, and counts as its
// replay's bytes. Over a payer's part, the payer's tapes are demoted, over the
// limit of all, anybody's: each time the oldest tape of the session that holds
// most, of the principal that holds most.
//
// Thread-safe. Graphs are destroyed outside the lock, by the calling thread.
// Must outlive its slots and leases.
class TapeStore {
 public:
  struct Limits {
    // Errors call it `max-tapes`.
    int64_t max_count = std::numeric_limits<int64_t>::max();
    // Errors call it `max-tape-bytes`.
    int64_t max_bytes = std::numeric_limits<int64_t>::max();
    // Counted from the tape's Put or the start of its last lease.
    absl::Duration ttl = absl::InfiniteDuration();
    // Parts of count and bytes.
    Quotas quotas = {};
  };

  struct Figures {
    int64_t count = 0;
    int64_t bytes = 0;

    bool operator==(const Figures&) const = default;
  };

  explicit TapeStore(const Limits& limits);
  ~TapeStore();

  TapeStore(const TapeStore&) = delete;
  TapeStore& operator=(const TapeStore&) = delete;

  // Holds a place for a tape of `payer`, so that a forward is refused before it
  // starts.
  //
  // Returns kResourceExhausted (LimitReached `max-tapes` or `max-tape-bytes`)
  // if the store is full, after expired tapes have been dropped and others
  // demoted.
  absl::StatusOr<TapeSlot> Reserve(const Payer& payer, absl::Time now);

  // Keeps `tape`, whose payer is that of `slot`, and returns its id. Put the
  // tape before the forward's buffers are published: a refused training forward
  // changes nothing.
  //
  // Returns kResourceExhausted (LimitReached `max-tape-bytes`) if its bytes do
  // not fit after others have been demoted; the tape is gone then.
  absl::StatusOr<std::string> Put(Tape tape, TapeSlot slot, absl::Time now);

  // Takes the tapes `ids` out for one backward: all of them, or none.
  //
  // Returns kFailedPrecondition (kTapeNotFound) if one is unknown to
  // `principal`, of another instance, expired, or in use by another lease;
  // kInvalidArgument (kInvalidOption) if `ids` names one twice.
  absl::StatusOr<TapeLease> Lease(absl::Span<const std::string> ids,
                                  std::string_view instance_uid,
                                  std::string_view principal, absl::Time now);

  // Demotes all tapes with memory on GPUs that no lease holds, and returns how
  // many it could.
  int64_t DemoteAllOnGpus();

  // Drops those of `ids` that belong to `principal` and returns their number. A
  // leased tape goes when its lease ends.
  int64_t Release(absl::Span<const std::string> ids,
                  std::string_view principal);

  // Drop the tapes of an instance, those of a principal's session that were put
  // or leased by `used`, or those that were unused for the TTL, and return
  // their number. A leased tape goes when its lease ends; it does not expire.
  int64_t DropInstance(std::string_view instance_uid);
  int64_t DropSession(std::string_view session, std::string_view principal,
                      absl::Time used);
  int64_t DropExpired(absl::Time now);

  // Returns an instance's tapes.
  std::vector<std::shared_ptr<const Tape>> OfInstance(
      std::string_view instance_uid) const;

  // Count and bytes of an instance's tapes, of all tapes, and of those within
  // `scope` of `payer`.
  Figures InstanceFigures(std::string_view instance_uid) const;
  Figures TotalFigures() const;
  Figures PayerFigures(LimitScope scope, const Payer& payer) const;

 private:
  friend TapeSlot;
  friend class TapeLease;

  struct Entry {
    std::shared_ptr<const Tape> tape;
    int64_t bytes = 0;    // As counted for the limits.
    uint64_t number = 0;  // Later tapes have higher numbers.
    absl::Time expires;
    bool leased = false;
    bool dropped = false;  // Goes at the end of its lease.
  };
  using Tapes = std::vector<std::shared_ptr<const Tape>>;
  friend class Token<TapeStore, Tapes>;
  using Entries = std::unordered_map<std::string, Entry>;  // By id.

  // The tapes of all, of a principal or of a session.
  struct Holder {
    Figures figures;
    int64_t reserved_count = 0;

    bool operator==(const Holder&) const = default;
  };

  // A limit on a payer's tapes, and its holder.
  struct Level {
    LimitScope scope;
    Holder& holder;
    int64_t max_count;
    int64_t max_bytes;
    int64_t free_bytes() const { return max_bytes - holder.figures.bytes; }
  };

  template <typename Predicate>
  int64_t DropIf(const Predicate& predicate);
  std::shared_ptr<const Tape> Remove(Entries::iterator entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckUse(const std::string& id, std::string_view instance_uid,
                        std::string_view principal, absl::Time now) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  std::vector<Level> LevelsOf(const Payer& payer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckCount(const Level& level) const;
  absl::Status CheckBytes(const Level& level, int64_t bytes) const;
  absl::Status MakeRoom(const Payer& payer, int64_t bytes, Tapes& undone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Tapes DemoteLeased(const Tapes& tapes);
  void Demote(Entry& entry, Tapes& undone)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Demote(const Level& level, const Payer& payer, int64_t bytes,
              Tapes& undone) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Count(const Tape& tape, int64_t count, int64_t bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Recount(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveBack(const Payer& payer);  // The place of a tape.
  void GiveBack(const Tapes& tapes) { EndLease(tapes, /*consume=*/false); }
  void EndLease(const Tapes& tapes, bool consume);

  const Limits limits_;

  mutable absl::Mutex mutex_;
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<std::string, Figures> by_instance_ ABSL_GUARDED_BY(mutex_);
  Ledger<Holder> holders_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_number_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_TAPES_TAPE_STORE_H_
