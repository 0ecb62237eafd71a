// Converts between the contract's instances and the server's.

#ifndef BACKBONED_SERVER_RPC_CONVERT_INSTANCE_CONVERT_H_
#define BACKBONED_SERVER_RPC_CONVERT_INSTANCE_CONVERT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "backboned/v1/backbone_service.pb.h"
#include "backboned/v1/instance.pb.h"
#include "backboned/v1/instance_service.pb.h"
#include "backbones/architectures.h"
#include "backbones/arguments.h"
#include "backbones/benchmarks.h"
#include "backbones/state.h"
#include "google/protobuf/map.h"
#include "server/device/device_worker.h"
#include "server/instances/feature_cache.h"
#include "server/instances/instance.h"
#include "server/instances/settings.h"
#include "server/instances/weights_folder.h"

namespace backboned::rpc {

using ArgumentMap = google::protobuf::Map<std::string, v1::ArgumentValue>;
Arguments FromProto(const ArgumentMap& arguments);
void ToProto(const Arguments& arguments, ArgumentMap& map);
v1::ArgumentValue ToProto(const ArgumentValue& value);

absl::StatusOr<WeightsOptions> FromProto(const v1::Weights& weights);
VersionCondition FromProto(const v1::IfVersion& condition);
Normalization FromProto(const v1::Normalization& normalization);
Settings FromProto(const v1::InstanceSettings& settings);
absl::StatusOr<Precision> FromProto(v1::Precision precision);
v1::Normalization ToProto(const Normalization& normalization);
v1::Precision ToProto(Precision precision);

v1::Version VersionOf(const Instance& instance, uint64_t params,
                      uint64_t buffers);
v1::Version VersionOf(const Instance& instance, const State& state);

v1::Architecture ToProto(const ArchitectureEntry& entry);
v1::Benchmark ToProto(const Benchmark& benchmark);

// Returns all fields except layout, digest, tapes and shared bytes. `state` is
// one of the instance's.
v1::Instance ToProto(Instance& instance, const State& state);
v1::Layout LayoutOf(const Instance& instance);

v1::BatchCounters ToProto(const DeviceWorker::BatchFigures& figures);
v1::CacheUse ToProto(CacheUse use);
v1::FeatureCache ToProto(const FeatureCache::Figures& figures);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CONVERT_INSTANCE_CONVERT_H_
