#include "server/tapes/tape_store.h"

#include <algorithm>
#include <cassert>
#include <map>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/random_id.h"

namespace backboned {
namespace {

// The usual time of a backward.
constexpr absl::Duration kTapeRetryDelay = absl::Seconds(1);

constexpr char kTapeAdvice[] = "; run backwards or release tapes";

absl::Status TapeError(const std::string& id, const char* what) {
  return Error(absl::StatusCode::kFailedPrecondition, Reason::kTapeNotFound,
               absl::StrCat("tape ", Quote(id), " ", what));
}

// Returns the tape without its graph.
std::shared_ptr<const Tape> Demoted(const Tape& tape) {
  auto demoted = std::make_shared<Tape>(tape);
  demoted->graph = nullptr;
  demoted->account = nullptr;
  demoted->gpu_memory = nullptr;
  demoted->replay->CountDemotion();
  return demoted;
}

bool IsDemoted(const Tape& tape) {
  return tape.graph == nullptr && tape.replay != nullptr;
}

bool CanBeDemoted(const Tape& tape) {
  return tape.graph != nullptr && tape.replay != nullptr;
}

Payer PayerOf(const Tape& tape) { return {tape.principal, tape.session}; }

// Returns whether `tape` counts within `scope` of `payer`.
bool IsWithin(const Tape& tape, LimitScope scope, const Payer& payer) {
  switch (scope) {
    case LimitScope::kSession:
      return PayerOf(tape) == payer;
    case LimitScope::kPrincipal:
      return tape.principal == payer.principal;
    default:
      return true;
  }
}

}  // namespace

void TapeLease::Demote() {
  TapeStore* const store = owner();
  if (store == nullptr) return;
  std::vector<std::shared_ptr<const Tape>> left = store->DemoteLeased(tapes());
  Take();  // They are leased still.
  *this = TapeLease(store, std::move(left));
}

void TapeLease::Consume() {
  TapeStore* const store = owner();
  if (store != nullptr) store->EndLease(Take(), /*consume=*/true);
}

TapeStore::TapeStore(const Limits& limits) : limits_(limits) {}

TapeStore::~TapeStore() = default;

absl::StatusOr<TapeSlot> TapeStore::Reserve(const Payer& payer,
                                            absl::Time now) {
  DropExpired(now);
  Tapes undone;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  holders_.ForgetIdle();
  absl::Status room;
  for (const Level& level : LevelsOf(payer)) room.Update(CheckCount(level));
  if (room.ok()) room = MakeRoom(payer, 1, undone);
  if (!room.ok()) return room;
  for (Holder* holder : holders_.Of(payer)) ++holder->reserved_count;
  return TapeSlot(this, payer);
}

absl::StatusOr<std::string> TapeStore::Put(Tape tape, TapeSlot slot,
                                           absl::Time now) {
  assert(slot.owner() == this && slot.right() == PayerOf(tape));
  tape.id = RandomId();
  const std::string id = tape.id;
  Entry entry = {.tape = std::make_shared<Tape>(std::move(tape)),
                 .expires = now + limits_.ttl};
  entry.bytes = entry.tape->bytes;
  Tapes undone;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  absl::Status room = MakeRoom(slot.right(), entry.bytes, undone);
  if (!room.ok() && CanBeDemoted(*entry.tape)) {
    undone.push_back(std::exchange(entry.tape, Demoted(*entry.tape)));
    entry.bytes = entry.tape->replay->bytes();
    room = MakeRoom(slot.right(), entry.bytes, undone);
  }
  if (!room.ok()) return room;
  entry.number = ++last_number_;
  Count(*entry.tape, 1, entry.bytes);
  for (Holder* holder : holders_.Of(slot.Take())) --holder->reserved_count;
  entries_.emplace(id, std::move(entry));
  return id;
}

absl::StatusOr<TapeLease> TapeStore::Lease(absl::Span<const std::string> ids,
                                           std::string_view instance_uid,
                                           std::string_view principal,
                                           absl::Time now) {
  std::unordered_set<std::string_view> seen;
  for (const std::string& id : ids) {
    if (!seen.insert(id).second) {
      return InvalidOption(absl::StrCat("tape ", Quote(id), " is named twice"));
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
                               std::string_view principal, absl::Time used) {
  return DropIf([&](const Entry& entry) {
    return entry.tape->session == session &&
           entry.tape->principal == principal &&
           entry.expires <= used + limits_.ttl;
  });
}

int64_t TapeStore::DropExpired(absl::Time now) {
  return DropIf([&](const Entry& entry) {
    return !entry.leased && entry.expires <= now;
  });
}

std::vector<std::shared_ptr<const Tape>> TapeStore::OfInstance(
    std::string_view instance_uid) const {
  Tapes tapes;
  absl::MutexLock lock(&mutex_);
  for (const auto& [id, entry] : entries_) {
    if (entry.tape->instance_uid == instance_uid) tapes.push_back(entry.tape);
  }
  return tapes;
}

TapeStore::Figures TapeStore::InstanceFigures(
    std::string_view instance_uid) const {
  absl::MutexLock lock(&mutex_);
  const auto figures = by_instance_.find(std::string(instance_uid));
  return figures == by_instance_.end() ? Figures() : figures->second;
}

TapeStore::Figures TapeStore::TotalFigures() const {
  absl::MutexLock lock(&mutex_);
  return holders_.all().figures;
}

TapeStore::Figures TapeStore::PayerFigures(LimitScope scope,
                                           const Payer& payer) const {
  absl::MutexLock lock(&mutex_);
  return holders_.Get(scope, payer).figures;
}

// Drops the tapes that `predicate` chooses; marks leased ones.
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
  Count(*tape, -1, -entry->second.bytes);
  entries_.erase(entry);
  return tape;
}

absl::Status TapeStore::CheckUse(const std::string& id,
                                 std::string_view instance_uid,
                                 std::string_view principal,
                                 absl::Time now) const {
  const auto found = entries_.find(id);
  // Another principal's tape is unknown, so that nothing reveals it.
  if (found == entries_.end() || found->second.dropped ||
      found->second.tape->principal != principal ||
      (!found->second.leased && found->second.expires <= now)) {
    return TapeError(id,
                     "is unknown, used, released or expired; run the forward "
                     "again");
  }
  if (found->second.tape->instance_uid != instance_uid) {
    return TapeError(id,
                     "is of another instance, or of an earlier one of the same "
                     "name; run the forward again");
  }
  if (found->second.leased) {
    return TapeError(id,
                     "is in use by another backward; wait for its end, or run "
                     "the forward again");
  }
  return absl::OkStatus();
}

// Returns the limits of a payer's tapes, the narrowest first.
std::vector<TapeStore::Level> TapeStore::LevelsOf(const Payer& payer) {
  const auto holders = holders_.Of(payer);
  auto next = holders.begin();
  std::vector<Level> levels;
  for (const LimitScope scope : kScopes) {
    const auto holder = *next++;
    if (!limits_.quotas.IsLimited(scope, payer)) continue;
    levels.push_back(
        {.scope = scope,
         .holder = *holder,
         .max_count = limits_.quotas.Part(scope, payer, limits_.max_count),
         .max_bytes = limits_.quotas.Part(scope, payer, limits_.max_bytes)});
  }
  return levels;
}

absl::Status TapeStore::CheckCount(const Level& level) const {
  const int64_t count =
      level.holder.figures.count + level.holder.reserved_count;
  if (count < level.max_count) return absl::OkStatus();
  return NoRoom({.name = "max-tapes",
                 .value = level.max_count,
                 .requested = count + 1,
                 .retry_delay = kTapeRetryDelay,
                 .scope = level.scope},
                count, "1 more tape", kTapeAdvice);
}

absl::Status TapeStore::CheckBytes(const Level& level, int64_t bytes) const {
  if (bytes <= level.free_bytes()) return absl::OkStatus();
  return NoRoom({.name = "max-tape-bytes",
                 .value = level.max_bytes,
                 .requested = level.holder.figures.bytes + bytes,
                 .retry_delay = bytes <= level.max_bytes ? kTapeRetryDelay
                                                         : absl::ZeroDuration(),
                 .scope = level.scope},
                level.holder.figures.bytes,
                absl::StrCat("a tape of ", bytes, " bytes"), kTapeAdvice);
}

// Demotes tapes until `bytes` of `payer` fit; returns the error if they cannot.
absl::Status TapeStore::MakeRoom(const Payer& payer, int64_t bytes,
                                 Tapes& undone) {
  const std::vector<Level> levels = LevelsOf(payer);
  for (const Level& level : levels) {
    if (bytes > level.max_bytes) return CheckBytes(level, bytes);
  }
  for (const Level& level : levels) {
    if (bytes > level.free_bytes()) Demote(level, payer, bytes, undone);
    absl::Status room = CheckBytes(level, bytes);
    if (!room.ok()) return room;
  }
  return absl::OkStatus();
}

// Demotes tapes within a level that no lease holds, until `bytes` fit: again
// and again the oldest of the largest session of the largest principal. Moves
// their graphs to `undone`.
void TapeStore::Demote(const Level& level, const Payer& payer, int64_t bytes,
                       Tapes& undone) {
  using OldestFirst = std::map<uint64_t, Entry*>;
  std::map<Payer, OldestFirst> candidates;
  for (auto& [id, entry] : entries_) {
    // The bytes of a demoted tape change with the instance.
    if (IsDemoted(*entry.tape)) Recount(entry);
    if (!entry.leased && CanBeDemoted(*entry.tape) &&
        IsWithin(*entry.tape, level.scope, payer)) {
      candidates[PayerOf(*entry.tape)][entry.number] = &entry;
    }
  }
  while (bytes > level.free_bytes() && !candidates.empty()) {
    const auto most =
        std::ranges::max_element(candidates, {}, [this](const auto& candidate) {
          mutex_.AssertHeld();
          const Payer& holder = candidate.first;
          return std::pair(
              holders_.Find(LimitScope::kPrincipal, holder)->figures.bytes,
              holders_.Find(LimitScope::kSession, holder)->figures.bytes);
        });
    Entry& oldest = *most->second.begin()->second;
    Demote(oldest, undone);
    most->second.erase(most->second.begin());
    if (most->second.empty()) candidates.erase(most);
  }
}

int64_t TapeStore::DemoteAllOnGpus() {
  Tapes undone;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  for (auto& [id, entry] : entries_) {
    const Tape& tape = *entry.tape;
    if (!entry.leased && tape.gpu_memory != nullptr && CanBeDemoted(tape)) {
      Demote(entry, undone);
    }
  }
  return std::ssize(undone);
}

// Returns the leased tapes without their graphs.
TapeStore::Tapes TapeStore::DemoteLeased(const Tapes& tapes) {
  Tapes undone;  // Destroyed after the lock.
  Tapes left;
  absl::MutexLock lock(&mutex_);
  for (const std::shared_ptr<const Tape>& tape : tapes) {
    Entry& entry = entries_.at(tape->id);
    if (CanBeDemoted(*tape)) Demote(entry, undone);
    left.push_back(entry.tape);
  }
  return left;
}

// Moves the graph of a tape to `undone`.
void TapeStore::Demote(Entry& entry, Tapes& undone) {
  undone.push_back(std::exchange(entry.tape, Demoted(*entry.tape)));
  Recount(entry);
}

// Adds to the figures of the holders of `tape`.
void TapeStore::Count(const Tape& tape, int64_t count, int64_t bytes) {
  const auto instance = by_instance_.try_emplace(tape.instance_uid).first;
  instance->second.count += count;
  instance->second.bytes += bytes;
  if (instance->second.count == 0) by_instance_.erase(instance);
  for (Holder* holder : holders_.Of(PayerOf(tape))) {
    holder->figures.count += count;
    holder->figures.bytes += bytes;
  }
}

// Counts a demoted entry as its replay's present bytes.
void TapeStore::Recount(Entry& entry) {
  const int64_t bytes = entry.tape->replay->bytes();
  Count(*entry.tape, 0, bytes - entry.bytes);
  entry.bytes = bytes;
}

void TapeStore::GiveBack(const Payer& payer) {
  absl::MutexLock lock(&mutex_);
  for (Holder* holder : holders_.Of(payer)) --holder->reserved_count;
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
