// Answers forwards from an instance's feature cache.

#ifndef BACKBONED_SERVER_COMPUTE_CACHED_FORWARD_H_
#define BACKBONED_SERVER_COMPUTE_CACHED_FORWARD_H_

#include <memory>
#include <optional>
#include <string>

#include "server/compute/forward_run.h"
#include "server/instances/feature_cache.h"
#include "server/limits/memory_account.h"

namespace backboned {

// Returns whether the answer of a forward may be kept: whether it consists of
// outputs, and depends only on the input and the instance's parameters and
// buffers. So the forward is in evaluation, with no BatchNorm layer in
// training, is not recorded, and neither brings buffers nor asks for them.
bool MayCache(const ForwardWork& work);

// The place of a forward's answer in a cache. Holds no tensor.
struct CachePlace {
  FeatureCache::Version version;
  std::string key;
};

// Returns the place for a forward that MayCache, has an input digest and runs
// with `used`. Two forwards have the same place if they have the same input,
// outputs and flags: their answers differ at most by merging.
CachePlace PlaceOf(const ForwardWork& work, const State& used);

// Returns the cache's answer at `place` to a forward that runs with `used`. The
// answer of a merged forward is only for forwards that may merge.
std::optional<ForwardDone> FindCached(const ForwardWork& work,
                                      const CachePlace& place,
                                      const StatePtr& used,
                                      bool by_digest = false);

// Keeps a copy of the forward's answer at `place`. `owner` pays for the copy,
// since the instance's owner decides how long it stays; null: nobody pays.
// Reports the outcome in `done`: there may be no memory for the copy.
void KeepCached(FeatureCache& cache, const CachePlace& place,
                const std::shared_ptr<MemoryAccount>& owner, ForwardDone& done);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_CACHED_FORWARD_H_
