#include "server/rpc/convert/batch_norm_header.h"

namespace backboned::rpc {
namespace {

BatchNormOverride OverrideOf(const v1::BatchNormOverride& change) {
  BatchNormOverride result;
  result.globs = {change.globs().begin(), change.globs().end()};
  if (change.has_training()) result.mode.training = change.training();
  if (change.has_track_running_stats()) {
    result.mode.track_running_stats = change.track_running_stats();
  }
  if (change.has_eps()) result.mode.eps = change.eps();
  if (change.has_momentum()) result.mode.momentum = change.momentum();
  result.mode.cumulative = change.cumulative();
  return result;
}

}  // namespace

absl::StatusOr<std::vector<BatchNormMode>> BatchNormOf(
    const google::protobuf::RepeatedPtrField<v1::BatchNormOverride>& overrides,
    const Layout& layout) {
  std::vector<BatchNormOverride> changes;
  for (const v1::BatchNormOverride& change : overrides) {
    changes.push_back(OverrideOf(change));
  }
  return ResolveBatchNorm(changes, layout);
}

}  // namespace backboned::rpc
