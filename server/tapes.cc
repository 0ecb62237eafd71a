#include "server/tapes.h"

#include <cassert>
#include <map>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/errors.h"
#include "server/random_id.h"

namespace backboned {
namespace {

// About as long as a backward takes.
constexpr absl::Duration kRetryDelay = absl::Seconds(1);

absl::Status TapeError(const std::string& id, const char* what) {
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kTapeNotFound,
               absl::StrCat("tape '", id, "' ", what));
}

// The tape without its graph.
std::shared_ptr<const Tape> Demoted(const Tape& tape) {
  auto demoted = std::make_shared<Tape>(tape);
  demoted->graph = nullptr;
  demoted->account = nullptr;
  demoted->replay->CountDemotion();
  return demoted;
}

bool IsDemoted(const Tape& tape) {
  return tape.graph == nullptr && tape.replay != nullptr;
}

bool CanBeDemoted(const Tape& tape) {
  return tape.graph != nullptr && tape.replay != nullptr;
}

}  // namespace

TapeSlot& TapeSlot::operator=(TapeSlot&& other) noexcept {
  std::swap(store_, other.store_);
  return *this;
}

TapeSlot::~TapeSlot() {
  if (store_ != nullptr) store_->FreeSlot();
}

TapeLease::TapeLease(TapeLease&& other) noexcept
    : store_(std::exchange(other.store_, nullptr)),
      tapes_(std::exchange(other.tapes_, {})) {}

TapeLease& TapeLease::operator=(TapeLease&& other) noexcept {
  std::swap(store_, other.store_);
  std::swap(tapes_, other.tapes_);
  return *this;
}

TapeLease::~TapeLease() { Finish(/*consume=*/false); }

void TapeLease::Consume() { Finish(/*consume=*/true); }

void TapeLease::Finish(bool consume) {
  if (store_ == nullptr) return;
  std::exchange(store_, nullptr)->EndLease(std::exchange(tapes_, {}), consume);
}

TapeStore::TapeStore(const Limits& limits) : limits_(limits) {}

TapeStore::~TapeStore() = default;

absl::StatusOr<TapeSlot> TapeStore::Reserve(absl::Time now) {
  DropExpired(now);
  Tapes undone;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  const int64_t count = total_.count + reserved_count_;
  if (count >= limits_.max_count) {
    return LimitReached(
        {.name = "max-tapes",
         .value = limits_.max_count,
         .requested = count + 1,
         .retry_delay = kRetryDelay},
        absl::StrCat(count, " tapes are kept, the limit is ", limits_.max_count,
                     "; run backwards or release tapes"));
  }
  MakeRoom(1, undone);
  if (total_.bytes >= limits_.max_bytes) {
    return NoBytes(1);
  }
  ++reserved_count_;
  return TapeSlot(this);
}

absl::StatusOr<std::string> TapeStore::Put(Tape tape, TapeSlot slot,
                                           absl::Time now) {
  assert(slot.store_ == this);
  tape.id = RandomId();
  const std::string id = tape.id;
  int64_t bytes = tape.bytes;
  std::shared_ptr<const Tape> kept = std::make_shared<Tape>(std::move(tape));
  Tapes undone;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  if (bytes <= limits_.max_bytes) MakeRoom(bytes, undone);
  if (bytes > limits_.max_bytes - total_.bytes && CanBeDemoted(*kept)) {
    undone.push_back(std::exchange(kept, Demoted(*kept)));
    bytes = kept->replay->bytes();
    MakeRoom(bytes, undone);
  }
  if (bytes > limits_.max_bytes - total_.bytes) return NoBytes(bytes);
  slot.store_ = nullptr;
  --reserved_count_;
  total_.count += 1;
  by_instance_[kept->instance_uid].count += 1;
  Entry& entry = entries_[id];
  entry = {.tape = std::move(kept),
           .number = ++last_number_,
           .expires = now + limits_.ttl};
  Count(entry, bytes);
  return id;
}

absl::StatusOr<TapeLease> TapeStore::Lease(absl::Span<const std::string> ids,
                                           std::string_view instance_uid,
                                           std::string_view principal,
                                           absl::Time now) {
  std::unordered_set<std::string_view> seen;
  for (const std::string& id : ids) {
    if (!seen.insert(id).second) {
      return Error(absl::StatusCode::kInvalidArgument, Reason::kInvalidOption,
                   absl::StrCat("tape '", id, "' is named twice"));
    }
  }
  absl::MutexLock lock(&mutex_);
  for (const std::string& id : ids) {
    absl::Status use = CheckUse(id, instance_uid, principal, now);
    if (!use.ok()) return use;
  }
  Tapes leased;
  for (const std::string& id : ids) {
    Entry& entry = entries_.at(id);
    entry.leased = true;
    entry.expires = now + limits_.ttl;
    leased.push_back(entry.tape);
  }
  return TapeLease(this, std::move(leased));
}

int64_t TapeStore::Release(absl::Span<const std::string> ids,
                           std::string_view principal) {
  const std::unordered_set<std::string_view> named(ids.begin(), ids.end());
  return DropIf([&](const Entry& entry) {
    return entry.tape->principal == principal && named.contains(entry.tape->id);
  });
}

int64_t TapeStore::DropInstance(std::string_view instance_uid) {
  return DropIf([&](const Entry& entry) {
    return entry.tape->instance_uid == instance_uid;
  });
}

int64_t TapeStore::DropSession(std::string_view session,
                               std::string_view principal) {
  return DropIf([&](const Entry& entry) {
    return entry.tape->session == session && entry.tape->principal == principal;
  });
}

int64_t TapeStore::DropExpired(absl::Time now) {
  return DropIf([&](const Entry& entry) {
    return !entry.leased && entry.expires <= now;
  });
}

TapeStore::Figures TapeStore::InstanceFigures(
    std::string_view instance_uid) const {
  absl::MutexLock lock(&mutex_);
  const auto figures = by_instance_.find(std::string(instance_uid));
  return figures == by_instance_.end() ? Figures() : figures->second;
}

TapeStore::Figures TapeStore::TotalFigures() const {
  absl::MutexLock lock(&mutex_);
  return total_;
}

// Drops what `predicate` chooses, or marks it if it is leased.
template <typename Predicate>
int64_t TapeStore::DropIf(const Predicate& predicate) {
  Tapes dead;  // Destroyed after the lock.
  int64_t count = 0;
  absl::MutexLock lock(&mutex_);
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const auto current = entry++;
    if (current->second.dropped || !predicate(current->second)) continue;
    ++count;
    if (current->second.leased) {
      current->second.dropped = true;
    } else {
      dead.push_back(Remove(current));
    }
  }
  return count;
}

std::shared_ptr<const Tape> TapeStore::Remove(Entries::iterator entry) {
  std::shared_ptr<const Tape> tape = std::move(entry->second.tape);
  const int64_t bytes = entry->second.bytes;
  entries_.erase(entry);
  const auto instance = by_instance_.find(tape->instance_uid);
  for (Figures* figures : {&total_, &instance->second}) {
    figures->count -= 1;
    figures->bytes -= bytes;
  }
  if (instance->second.count == 0) by_instance_.erase(instance);
  return tape;
}

absl::Status TapeStore::CheckUse(const std::string& id,
                                 std::string_view instance_uid,
                                 std::string_view principal,
                                 absl::Time now) const {
  const auto found = entries_.find(id);
  // Somebody else's is unknown, so that nobody learns of it.
  if (found == entries_.end() || found->second.dropped ||
      found->second.tape->principal != principal ||
      (!found->second.leased && found->second.expires <= now)) {
    return TapeError(id,
                     "is unknown, used, released or expired; run the forward "
                     "again");
  }
  if (found->second.tape->instance_uid != instance_uid) {
    return TapeError(id,
                     "is of another instance, or of this one before it was "
                     "made anew; run the forward again");
  }
  if (found->second.leased) {
    return TapeError(id,
                     "is in use by another backward; wait for its end, or run "
                     "the forward again");
  }
  return absl::OkStatus();
}

// Demotes tapes that nobody uses, the oldest first, until `bytes` fit. Their
// former selves go to `undone`.
void TapeStore::MakeRoom(int64_t bytes, Tapes& undone) {
  if (bytes <= limits_.max_bytes - total_.bytes) return;
  std::map<uint64_t, Entry*> oldest_first;
  for (auto& [id, entry] : entries_) {
    // What a demoted one keeps for itself changes with the instance.
    if (IsDemoted(*entry.tape)) Count(entry, entry.tape->replay->bytes());
    if (!entry.leased && CanBeDemoted(*entry.tape)) {
      oldest_first[entry.number] = &entry;
    }
  }
  for (const auto& [number, entry] : oldest_first) {
    if (bytes <= limits_.max_bytes - total_.bytes) return;
    undone.push_back(std::exchange(entry->tape, Demoted(*entry->tape)));
    Count(*entry, entry->tape->replay->bytes());
  }
}

// Lets an entry count `bytes`.
void TapeStore::Count(Entry& entry, int64_t bytes) {
  for (Figures* figures : {&total_, &by_instance_[entry.tape->instance_uid]}) {
    figures->bytes += bytes - entry.bytes;
  }
  entry.bytes = bytes;
}

absl::Status TapeStore::NoBytes(int64_t bytes) const {
  return LimitReached(
      {.name = "max-tape-bytes",
       .value = limits_.max_bytes,
       .requested = total_.bytes + bytes,
       .retry_delay =
           bytes <= limits_.max_bytes ? kRetryDelay : absl::ZeroDuration()},
      absl::StrCat("a tape of ", bytes, " bytes does not fit: tapes hold ",
                   total_.bytes, " of ", limits_.max_bytes,
                   " bytes; run backwards or release tapes"));
}

void TapeStore::FreeSlot() {
  absl::MutexLock lock(&mutex_);
  --reserved_count_;
}

void TapeStore::EndLease(const Tapes& tapes, bool consume) {
  Tapes dead;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  for (const std::shared_ptr<const Tape>& tape : tapes) {
    const auto entry = entries_.find(tape->id);
    entry->second.leased = false;
    if (consume || entry->second.dropped) dead.push_back(Remove(entry));
  }
}

}  // namespace backboned
