#include "server/compute/cached_forward.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/device/host_view.h"

namespace backboned {

bool MayCache(const ForwardWork& work) {
  return !work.options.training && !work.options.record &&
         !UsesBatchStatistics(work.options) && work.buffers.empty() &&
         !work.return_buffers;
}

CachePlace PlaceOf(const ForwardWork& work, const State& used) {
  const at::ScalarType own = DtypeOf(used);
  CachePlace place = {.version = {.params = used.params_version,
                                  .buffers = used.buffers_version},
                      .key = work.input_digest};
  absl::StrAppend(&place.key, absl::StrJoin(work.options.outputs, ","), ";",
                  static_cast<int>(work.options.prerelu), ";",
                  static_cast<int>(work.l2_normalize), ";",
                  static_cast<int>(work.output_dtype.value_or(own)), ";");
  for (const BatchNormMode& mode : work.options.batch_norm) {
    // In evaluation its other fields do not matter.
    if (mode.eps.has_value()) {
      absl::StrAppendFormat(&place.key, "%a", *mode.eps);
    }
    place.key.push_back(',');
  }
  return place;
}

std::optional<ForwardDone> FindCached(const ForwardWork& work,
                                      const CachePlace& place,
                                      const StatePtr& used, bool by_digest) {
  std::optional<FeatureCache::Answer> answer = work.instance->cache().Find(
      place.version, place.key,
      {.exact = !work.allow_merge, .by_digest = by_digest});
  if (!answer.has_value()) return std::nullopt;
  ForwardDone done;
  done.outputs = std::move(answer->outputs);
  done.used = used;
  done.buffers_version = used->buffers_version;
  done.rng_state = work.options.rng_state;
  done.exact = answer->exact;
  done.cache_use = CacheUse::kHit;
  return done;
}

void KeepCached(FeatureCache& cache, const CachePlace& place,
                const std::shared_ptr<MemoryAccount>& owner,
                ForwardDone& done) {
  FeatureCache::Answer answer = {.exact = done.exact};
  try {
    const ScopedAccount scope(owner);
    for (const at::Tensor& output : done.outputs) {
      answer.outputs.push_back(CopyOnHost(output));
    }
  } catch (const std::exception&) {
    return;  // No memory for a copy; the answer is good anyway.
  }
  done.cache_use = cache.Insert(place.version, place.key, std::move(answer));
}

}  // namespace backboned
