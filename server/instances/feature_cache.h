// Answers of forwards, kept so that equal ones are not computed again.

#ifndef BACKBONED_SERVER_INSTANCES_FEATURE_CACHE_H_
#define BACKBONED_SERVER_INSTANCES_FEATURE_CACHE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/limits/budget.h"
#include "server/limits/quotas.h"

namespace backboned {

// What an instance's feature cache has to do with an answer.
enum class CacheUse {
  kNone,      // The cache is off, or has another version.
  kHit,       // It is the cache's.
  kKept,      // It was computed, and is kept.
  kTooLarge,  // It was computed, and alone takes more than the cache may.
};

// What one instance's forwards were answered in its present version, by keys
// that say what was asked. What was used least recently goes first when there
// is no room. It keeps nothing until it is resized.
//
// Thread-safe.
class FeatureCache {
 public:
  // Bytes that an answer takes besides those of its tensors.
  static constexpr int64_t kEntryBytes = 512;

  // Of parameters and buffers: which of the instance's States.
  struct Version {
    uint64_t params = 1;
    uint64_t buffers = 1;

    friend bool operator==(const Version&, const Version&) = default;
  };

  struct Answer {
    // On the CPU, contiguous, each with memory of no more than its own bytes.
    std::vector<at::Tensor> outputs;
    // It has the bits of a forward that runs alone and whole.
    bool exact = true;
  };

  // What may answer a question.
  struct Wanted {
    bool exact = true;       // An exact answer only.
    bool by_digest = false;  // It is asked for without the input.
  };

  struct Figures {
    int64_t bytes = 0;  // Of the answers, with kEntryBytes each.
    int64_t entries = 0;
    // Since the beginning:
    int64_t hits = 0;
    int64_t misses = 0;           // Not those by digest.
    int64_t unknown_digests = 0;  // Misses by digest.
    int64_t evictions = 0;        // For want of room.
    int64_t too_large = 0;
  };

  // Makes a cache of 0 bytes for an instance at `version`. It takes its limit
  // from `room`, for `payer`, whether it fills it or not, so that none is in
  // another's way. Without a room it stays as it is.
  FeatureCache(std::shared_ptr<Budget> room, Payer payer,
               const Version& version);

  FeatureCache(const FeatureCache&) = delete;
  FeatureCache& operator=(const FeatureCache&) = delete;

  // Replaces the limit on its bytes, and drops what is over it; 0 turns it off.
  //
  // Returns the room's error; nothing has changed then.
  absl::Status Resize(int64_t limit_bytes);

  // The limit on its bytes.
  int64_t limit_bytes() const;

  // Returns the answer to `key` in `version`, if it is there and good enough,
  // and counts a hit or a miss. Counts nothing if the cache is off.
  std::optional<Answer> Find(const Version& version, const std::string& key,
                             const Wanted& wanted);

  // Keeps the answer to `key` in `version`, in place of what was there; but an
  // exact one stays. Returns what became of it: kNone, kKept or kTooLarge.
  CacheUse Insert(const Version& version, const std::string& key,
                  Answer answer);

  // Drops everything unless the instance is at `version` already; from now on
  // it is.
  void MoveTo(const Version& version);

  Figures figures() const;

 private:
  struct Entry {
    std::string key;
    Answer answer;
    int64_t bytes = 0;
  };
  using Entries = std::list<Entry>;

  void Remove(Entries::iterator entry, Entries& dead)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Evict(Entries& dead) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<Budget> room_;
  const Payer payer_;

  mutable absl::Mutex mutex_;
  Budget::Reservation limit_ ABSL_GUARDED_BY(mutex_);  // On its bytes.
  Version version_ ABSL_GUARDED_BY(mutex_);
  // The most recently used first.
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<std::string, Entries::iterator> by_key_
      ABSL_GUARDED_BY(mutex_);
  Figures figures_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_FEATURE_CACHE_H_
