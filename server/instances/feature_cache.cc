#include "server/instances/feature_cache.h"

#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned {
namespace {

int64_t BytesOf(const FeatureCache::Answer& answer) {
  int64_t bytes = FeatureCache::kEntryBytes;
  for (const at::Tensor& output : answer.outputs) {
    bytes += static_cast<int64_t>(output.nbytes());
  }
  return bytes;
}

}  // namespace

FeatureCache::FeatureCache(std::shared_ptr<Budget> room, Payer payer,
                           const Version& version)
    : room_(std::move(room)), payer_(std::move(payer)), version_(version) {}

absl::Status FeatureCache::Resize(int64_t limit_bytes) {
  Entries dead;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  if (limit_bytes == limit_.amount()) return absl::OkStatus();
  if (room_ == nullptr)
    return InvalidOption("this instance cannot have a feature cache");
  absl::Status changed = room_->Resize(limit_, payer_, limit_bytes);
  if (!changed.ok()) return changed;
  Evict(dead);
  return absl::OkStatus();
}

int64_t FeatureCache::limit_bytes() const {
  absl::MutexLock lock(&mutex_);
  return limit_.amount();
}

std::optional<FeatureCache::Answer> FeatureCache::Find(const Version& version,
                                                       const std::string& key,
                                                       const Wanted& wanted) {
  absl::MutexLock lock(&mutex_);
  if (limit_.amount() == 0) return std::nullopt;
  const auto found = by_key_.find(key);
  if (version == version_ && found != by_key_.end() &&
      (found->second->answer.exact || !wanted.exact)) {
    ++figures_.hits;
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->answer;
  }
  ++(wanted.by_digest ? figures_.unknown_digests : figures_.misses);
  return std::nullopt;
}

CacheUse FeatureCache::Insert(const Version& version, const std::string& key,
                              Answer answer) {
  const int64_t bytes = BytesOf(answer);
  Entries dead;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  if (limit_.amount() == 0 || version != version_) return CacheUse::kNone;
  if (bytes > limit_.amount()) {
    ++figures_.too_large;
    return CacheUse::kTooLarge;
  }
  const auto present = by_key_.find(key);
  if (present != by_key_.end()) {
    if (present->second->answer.exact) return CacheUse::kKept;
    Remove(present->second, dead);
  }
  entries_.push_front(
      {.key = key, .answer = std::move(answer), .bytes = bytes});
  by_key_[key] = entries_.begin();
  figures_.bytes += bytes;
  Evict(dead);
  return CacheUse::kKept;
}

void FeatureCache::MoveTo(const Version& version) {
  Entries dead;  // Destroyed after the lock.
  absl::MutexLock lock(&mutex_);
  if (version == version_) return;
  version_ = version;
  by_key_.clear();
  dead.swap(entries_);
  figures_.bytes = 0;
}

FeatureCache::Figures FeatureCache::figures() const {
  absl::MutexLock lock(&mutex_);
  Figures figures = figures_;
  figures.entries = static_cast<int64_t>(entries_.size());
  return figures;
}

// Moves an entry to `dead`.
void FeatureCache::Remove(Entries::iterator entry, Entries& dead) {
  figures_.bytes -= entry->bytes;
  by_key_.erase(entry->key);
  dead.splice(dead.end(), entries_, entry);
}

// Moves the least recently used entries over the limit to `dead`.
void FeatureCache::Evict(Entries& dead) {
  while (figures_.bytes > limit_.amount()) {
    Remove(std::prev(entries_.end()), dead);
    ++figures_.evictions;
  }
}

}  // namespace backboned
