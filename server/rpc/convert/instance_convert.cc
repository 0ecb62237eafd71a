#include "server/rpc/convert/instance_convert.h"

#include <google/protobuf/util/time_util.h>

#include <cstddef>
#include <optional>
#include <string>
#include <type_traits>
#include <variant>

#include "absl/strings/str_cat.h"
#include "backbones/dtypes.h"
#include "base/errors.h"
#include "server/rpc/convert/optimizer_convert.h"
#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {

using google::protobuf::util::TimeUtil;

Arguments FromProto(const ArgumentMap& arguments) {
  Arguments result;
  for (const auto& [name, value] : arguments) {
    switch (value.kind_case()) {
      case v1::ArgumentValue::kIntValue:
        result[name] = int64_t{value.int_value()};
        break;
      case v1::ArgumentValue::kDoubleValue:
        result[name] = value.double_value();
        break;
      case v1::ArgumentValue::kBoolValue:
        result[name] = value.bool_value();
        break;
      default:
        result[name] = value.string_value();
    }
  }
  return result;
}

v1::ArgumentValue ToProto(const ArgumentValue& value) {
  v1::ArgumentValue result;
  std::visit(
      [&result](const auto& held) {
        using Held = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<Held, int64_t>) {
          result.set_int_value(held);
        } else if constexpr (std::is_same_v<Held, double>) {
          result.set_double_value(held);
        } else if constexpr (std::is_same_v<Held, bool>) {
          result.set_bool_value(held);
        } else {
          result.set_string_value(held);
        }
      },
      value);
  return result;
}

void ToProto(const Arguments& arguments, ArgumentMap& map) {
  for (const auto& [name, value] : arguments) map[name] = ToProto(value);
}

absl::StatusOr<WeightsOptions> FromProto(const v1::Weights& weights) {
  WeightsOptions result = {.name = weights.name()};
  result.load.partial = weights.partial();
  result.load.resize_position_embedding = weights.resize_position_embedding();
  switch (weights.load_by()) {
    case v1::LOAD_BY_UNSPECIFIED:
    case v1::LOAD_BY_NAME:
      return result;
    case v1::LOAD_BY_ORDER:
      result.load.by = LoadBy::kOrder;
      return result;
    default:
      return InvalidOption(absl::StrCat(
          "load_by ", static_cast<int>(weights.load_by()), " is unknown"));
  }
}

VersionCondition FromProto(const v1::IfVersion& condition) {
  VersionCondition result{.uid = condition.uid()};
  if (condition.has_params()) result.params = condition.params();
  if (condition.has_buffers()) result.buffers = condition.buffers();
  return result;
}

Normalization FromProto(const v1::Normalization& normalization) {
  return {.mean = {normalization.mean().begin(), normalization.mean().end()},
          .std = {normalization.std().begin(), normalization.std().end()}};
}

Settings FromProto(const v1::InstanceSettings& settings) {
  return {.read_only = settings.read_only(),
          .frozen = {settings.frozen().begin(), settings.frozen().end()},
          .feature_cache_bytes = settings.feature_cache_bytes(),
          .shared = settings.shared()};
}

v1::Normalization ToProto(const Normalization& normalization) {
  v1::Normalization result;
  result.mutable_mean()->Assign(normalization.mean.begin(),
                                normalization.mean.end());
  result.mutable_std()->Assign(normalization.std.begin(),
                               normalization.std.end());
  return result;
}

v1::Version VersionOf(const Instance& instance, uint64_t params,
                      uint64_t buffers) {
  v1::Version version;
  version.set_uid(instance.uid());
  version.set_params(params);
  version.set_buffers(buffers);
  return version;
}

v1::Version VersionOf(const Instance& instance, const State& state) {
  return VersionOf(instance, state.params_version, state.buffers_version);
}

v1::Architecture ToProto(const ArchitectureEntry& entry) {
  v1::Architecture result;
  result.set_name(entry.name);
  result.set_description(entry.description);
  result.set_source(entry.source);
  for (const ArgumentSpec& spec : entry.arguments) {
    v1::ArgumentSpec& argument = *result.add_arguments();
    argument.set_name(spec.name);
    argument.set_description(spec.description);
    if (spec.default_value.has_value()) {
      *argument.mutable_default_value() = ToProto(*spec.default_value);
    }
    if (spec.minimum.has_value()) argument.set_minimum(*spec.minimum);
    if (spec.maximum.has_value()) argument.set_maximum(*spec.maximum);
    if (spec.step != 1) argument.set_step(spec.step);
    for (const ArgumentValue& choice : spec.choices) {
      *argument.add_choices() = ToProto(choice);
    }
  }
  return result;
}

v1::Benchmark ToProto(const Benchmark& benchmark) {
  v1::Benchmark result;
  result.set_name(benchmark.name);
  result.set_setting(benchmark.setting);
  result.set_architecture(benchmark.architecture);
  ToProto(benchmark.arguments, *result.mutable_arguments());
  result.set_num_classes(static_cast<int32_t>(benchmark.num_classes));
  result.set_num_tasks(static_cast<int32_t>(benchmark.num_tasks));
  for (int64_t classes : benchmark.classes_per_task) {
    result.add_classes_per_task(static_cast<int32_t>(classes));
  }
  result.mutable_input_shape()->Assign(benchmark.input_shape.begin(),
                                       benchmark.input_shape.end());
  *result.mutable_normalization() =
      ToProto(Normalization{benchmark.mean, benchmark.std});
  result.set_batch_size(static_cast<int32_t>(benchmark.batch_size));
  result.set_epochs(static_cast<int32_t>(benchmark.epochs));
  result.set_source(benchmark.source);
  return result;
}

absl::StatusOr<Precision> FromProto(v1::Precision precision) {
  switch (precision) {
    case v1::PRECISION_UNSPECIFIED:
      return Precision::kDefault;
    case v1::PRECISION_HIGHEST:
      return Precision::kHighest;
    case v1::PRECISION_TF32:
      return Precision::kTf32;
    case v1::PRECISION_BFLOAT16:
      return Precision::kBfloat16;
    default:
      return InvalidOption(
          absl::StrCat("there is no precision ", static_cast<int>(precision)));
  }
}

v1::Precision ToProto(Precision precision) {
  switch (precision) {
    case Precision::kHighest:
      return v1::PRECISION_HIGHEST;
    case Precision::kTf32:
      return v1::PRECISION_TF32;
    case Precision::kBfloat16:
      return v1::PRECISION_BFLOAT16;
    default:
      return v1::PRECISION_UNSPECIFIED;
  }
}

v1::Instance ToProto(Instance& instance, const State& state) {
  const Instance::Identity& identity = instance.identity();
  v1::Instance result;
  result.set_name(identity.name);
  result.set_owner(identity.owner);
  *result.mutable_version() = VersionOf(instance, state);
  result.set_architecture(instance.architecture().name());
  ToProto(instance.architecture().arguments(), *result.mutable_arguments());
  result.set_benchmark(identity.benchmark);
  result.set_device(instance.worker().device().str());
  *result.mutable_create_time() =
      TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(identity.created));
  *result.mutable_normalization() = ToProto(identity.normalization);
  result.set_asleep(IsMeta(state));
  result.set_memory_bytes(IsMeta(state) ? 0 : StateBytes(state));
  result.mutable_counters()->set_forwards(instance.counters().forwards);
  result.mutable_counters()->set_backwards(instance.counters().backwards);
  result.mutable_counters()->set_writes(instance.counters().writes);
  result.mutable_counters()->set_steps(instance.counters().steps);
  result.mutable_counters()->set_demoted_tapes(
      instance.counters().demoted_tapes);
  result.mutable_counters()->set_replayed_forwards(
      instance.counters().replayed_forwards);
  const Settings settings = instance.settings();
  result.mutable_settings()->set_read_only(settings.read_only);
  result.mutable_settings()->mutable_frozen()->Add(settings.frozen.begin(),
                                                   settings.frozen.end());
  result.mutable_settings()->set_feature_cache_bytes(
      settings.feature_cache_bytes);
  result.mutable_settings()->set_shared(settings.shared);
  *result.mutable_feature_cache() = ToProto(instance.cache().figures());
  result.set_ephemeral(identity.ephemeral);
  result.set_weights(identity.weights);
  result.set_weights_sha256(identity.weights_sha256);
  if (state.optimizer != nullptr) {
    *result.mutable_optimizer() = ToProto(*state.optimizer);
  }
  const auto version_of = [&instance](const StateVersion& version) {
    return VersionOf(instance, version.params, version.buffers);
  };
  const std::optional<StateVersion> saved = instance.saved();
  if (saved.has_value()) *result.mutable_saved() = version_of(*saved);
  if (identity.rollback.has_value()) {
    v1::Rollback& rollback = *result.mutable_rollback();
    for (const StateVersion& version : identity.rollback->saved) {
      *rollback.add_saved() = version_of(version);
    }
    *rollback.mutable_raised() = version_of(identity.rollback->raised);
  }
  result.set_gradient_changes(state.grads_changes);
  result.set_dtype(ToProto(DtypeOf(state)));
  result.set_precision(ToProto(identity.precision));
  for (const std::string& column : identity.columns) {
    result.add_columns(column);
  }
  return result;
}

v1::Layout LayoutOf(const Instance& instance) {
  const Architecture& architecture = instance.architecture();
  const c10::ScalarType dtype = DtypeOf(*instance.state());
  v1::Layout result;
  for (const Parameter& parameter : architecture.layout().parameters()) {
    v1::Parameter& added = *result.add_parameters();
    added.set_name(parameter.name);
    added.mutable_shape()->Assign(parameter.shape.begin(),
                                  parameter.shape.end());
    added.set_offset(parameter.offset);
    for (const std::string& alias : parameter.aliases) added.add_aliases(alias);
  }
  for (const Buffer& buffer : architecture.layout().buffers()) {
    v1::Buffer& added = *result.add_buffers();
    added.set_name(buffer.name);
    added.set_dtype(ToProto(StoredDtype(buffer.dtype, dtype)));
    added.mutable_shape()->Assign(buffer.shape.begin(), buffer.shape.end());
  }
  result.set_parameter_elements(architecture.layout().parameter_elements());
  for (const std::string& output : architecture.output_names()) {
    result.add_outputs(output);
  }
  for (const auto& [name, value] : architecture.attributes()) {
    (*result.mutable_attributes())[name] = value;
  }
  result.mutable_input_shape()->Assign(architecture.input_shape().begin(),
                                       architecture.input_shape().end());
  result.set_stochastic(architecture.stochastic());
  result.set_prerelu(architecture.has_prerelu());
  return result;
}

v1::BatchCounters ToProto(const DeviceWorker::BatchFigures& figures) {
  const auto left = [&figures](BatchReason reason) {
    return figures.batches[static_cast<size_t>(reason)];
  };
  v1::BatchCounters counters;
  counters.set_full(left(BatchReason::kFull));
  counters.set_delay(left(BatchReason::kDelay));
  counters.set_incompatible(left(BatchReason::kIncompatible));
  counters.set_device_idle(left(BatchReason::kDeviceIdle));
  counters.set_merged_forwards(figures.merged_items);
  counters.set_samples(figures.samples);
  return counters;
}

v1::CacheUse ToProto(CacheUse use) {
  switch (use) {
    case CacheUse::kHit:
      return v1::CACHE_USE_HIT;
    case CacheUse::kKept:
      return v1::CACHE_USE_KEPT;
    case CacheUse::kTooLarge:
      return v1::CACHE_USE_TOO_LARGE;
    default:
      return v1::CACHE_USE_UNSPECIFIED;
  }
}

v1::FeatureCache ToProto(const FeatureCache::Figures& figures) {
  v1::FeatureCache cache;
  cache.set_bytes(figures.bytes);
  cache.set_entries(figures.entries);
  cache.set_hits(figures.hits);
  cache.set_misses(figures.misses);
  cache.set_unknown_digests(figures.unknown_digests);
  cache.set_evictions(figures.evictions);
  cache.set_too_large(figures.too_large);
  return cache;
}

}  // namespace backboned::rpc
