// Forwards that an instance's feature cache answers.

#ifndef BACKBONED_SERVER_COMPUTE_CACHED_FORWARD_H_
#define BACKBONED_SERVER_COMPUTE_CACHED_FORWARD_H_

#include <memory>
#include <optional>
#include <string>

#include "server/compute/forward_run.h"
#include "server/instances/feature_cache.h"
#include "server/limits/memory_account.h"

namespace backboned {

// Whether the answer of a forward may be kept: it follows from the input and
// the instance's parameters and buffers alone, and is nothing but outputs. So
// it is in evaluation, with no BatchNorm layer in training, is not recorded,
// and neither brings buffers nor asks for them.
bool MayCache(const ForwardWork& work);

// Where the answer of a forward is kept. Holds no tensor.
struct CachePlace {
  FeatureCache::Version version;
  std::string key;
};

// Returns the place of a forward with an input digest that MayCache and runs
// with `used`. Two forwards have one place if they give the same answer, up to
// what merging changes: the same inputs, outputs, and flags.
CachePlace PlaceOf(const ForwardWork& work, const State& used);

// Returns what the instance's cache has at `place`, as the forward that runs
// with `used` gives it. Not for a forward that may not merge, if it ran merged.
std::optional<ForwardDone> FindCached(const ForwardWork& work,
                                      const CachePlace& place,
                                      const StatePtr& used,
                                      bool by_digest = false);

// Keeps a copy of what a forward gave at `place`, which `owner` pays for, since
// the instance's owner decides how long it stays; null: nobody pays. Says in
// `done` what became of it: there may be no memory for it.
void KeepCached(FeatureCache& cache, const CachePlace& place,
                const std::shared_ptr<MemoryAccount>& owner, ForwardDone& done);

}  // namespace backboned

#endif  // BACKBONED_SERVER_COMPUTE_CACHED_FORWARD_H_
