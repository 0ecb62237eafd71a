// Keeps answers of forwards, so that equal ones are not computed again.

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

// The part of an instance's feature cache in an answer.
enum class CacheUse {
  kNone,      // The cache is off, or has another version.
  kHit,       // The answer came from the cache.
  kKept,      // It was computed and is kept.
  kTooLarge,  // It was computed, and alone exceeds the cache's limit.
};

// The answers to one instance's forwards in its present version, by keys that
// describe the forwards. If there is no room, the answer that was used least
// recently goes first. Keeps nothing until it is resized.
//
// Thread-safe.
class FeatureCache {
 public:
  // The bytes that an answer takes besides those of its tensors.
  static constexpr int64_t kEntryBytes = 512;

  // The version of parameters and buffers of one of the instance's States.
  struct Version {
    uint64_t params = 1;
    uint64_t buffers = 1;

    friend bool operator==(const Version&, const Version&) = default;
  };

  struct Answer {
    // On the CPU, contiguous, each with memory of only its own bytes.
    std::vector<at::Tensor> outputs;
    // Has the bits of a forward that runs alone and whole.
    bool exact = true;
  };

  // Conditions on an answer.
  struct Wanted {
    bool exact = true;       // Only an exact answer will do.
    bool by_digest = false;  // The caller has not sent the input.
  };

  struct Figures {
    int64_t bytes = 0;  // Of the answers, each with kEntryBytes.
    int64_t entries = 0;
    // Since the beginning:
    int64_t hits = 0;
    int64_t misses = 0;           // Without those by digest.
    int64_t unknown_digests = 0;  // Misses by digest.
    int64_t evictions = 0;        // Answers dropped for want of room.
    int64_t too_large = 0;
  };

  // Makes a cache of 0 bytes for an instance at `version`. The cache takes its
  // whole limit from `room`, for `payer`, even if it is empty, so that no cache
  // is in another's way. Without a room it cannot be resized.
  FeatureCache(std::shared_ptr<Budget> room, Payer payer,
               const Version& version);

  FeatureCache(const FeatureCache&) = delete;
  FeatureCache& operator=(const FeatureCache&) = delete;

  // Replaces the limit in bytes, and drops answers over it; 0 turns it off.
  //
  // Returns the room's error; nothing has changed then.
  absl::Status Resize(int64_t limit_bytes);

  // The limit in bytes.
  int64_t limit_bytes() const;

  // Returns the answer to `key` in `version` if there is one that meets
  // `wanted`, and counts a hit or a miss. Counts nothing if the cache is off.
  std::optional<Answer> Find(const Version& version, const std::string& key,
                             const Wanted& wanted);

  // Keeps the answer to `key` in `version`. It replaces an earlier answer,
  // unless that is exact. Returns what became of it: kNone, kKept or kTooLarge.
  CacheUse Insert(const Version& version, const std::string& key,
                  Answer answer);

  // Sets the instance's version, and drops everything if it is a new one.
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
  Budget::Reservation limit_ ABSL_GUARDED_BY(mutex_);  // The limit's bytes.
  Version version_ ABSL_GUARDED_BY(mutex_);
  // The most recently used first.
  Entries entries_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<std::string, Entries::iterator> by_key_
      ABSL_GUARDED_BY(mutex_);
  Figures figures_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_FEATURE_CACHE_H_
