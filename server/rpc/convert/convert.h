// Between the contract's messages and the server's types.

#ifndef BACKBONED_SERVER_RPC_CONVERT_CONVERT_H_
#define BACKBONED_SERVER_RPC_CONVERT_CONVERT_H_

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backboned/v1/backbone_service.pb.h"
#include "backboned/v1/instance.pb.h"
#include "backboned/v1/instance_service.pb.h"
#include "backbones/arguments.h"
#include "backbones/benchmarks.h"
#include "backbones/registry.h"
#include "backbones/selection.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/map.h"
#include "proto/wire/tensor_writer.h"
#include "server/compute/forward.h"
#include "server/device/device_worker.h"
#include "server/instances/feature_cache.h"
#include "server/instances/instance.h"
#include "server/instances/settings.h"
#include "server/instances/weights_folder.h"

namespace backboned::rpc {

// Element types. `FromProto` fails with kInvalidArgument for one that is none.
v1::DataType ToProto(c10::ScalarType dtype);
absl::StatusOr<c10::ScalarType> FromProto(v1::DataType dtype);

// As FromProto, of floating-point types only. kInvalidArgument
// (kDtypeMismatch), which calls it `what`, for others.
absl::StatusOr<c10::ScalarType> FloatFromProto(v1::DataType dtype,
                                               std::string_view what);

// As FloatFromProto; absent if the caller does not say.
absl::StatusOr<std::optional<c10::ScalarType>> OptionalFloat(
    v1::DataType dtype, std::string_view what);

// A spec of `tensor` under `name`.
v1::TensorSpec Spec(std::string_view name, const at::Tensor& tensor);

// The spec [elements] of a flat tensor.
v1::TensorSpec FlatSpec(int64_t elements, c10::ScalarType dtype);

// Spec and presence of one gradient a parameter, all of one element type; an
// undefined one is absent.
v1::FlatGrads FlatGradsOf(const std::vector<at::Tensor>& grads);

// A payload around a contiguous CPU tensor, which it keeps alive. An undefined
// tensor gives no bytes.
wire::Payload ToPayload(const at::Tensor& tensor);

using ArgumentMap = google::protobuf::Map<std::string, v1::ArgumentValue>;
Arguments FromProto(const ArgumentMap& arguments);
void ToProto(const Arguments& arguments, ArgumentMap& map);
v1::ArgumentValue ToProto(const ArgumentValue& value);

Selection FromProto(const v1::Selection& selection);
absl::StatusOr<WeightsOptions> FromProto(const v1::Weights& weights);
VersionCondition FromProto(const v1::IfVersion& condition);
Normalization FromProto(const v1::Normalization& normalization);
Settings FromProto(const v1::InstanceSettings& settings);
v1::Normalization ToProto(const Normalization& normalization);

v1::Version VersionOf(const Instance& instance, uint64_t params,
                      uint64_t buffers);
v1::Version VersionOf(const Instance& instance, const State& state);

v1::Architecture ToProto(const ArchitectureEntry& entry);
v1::Benchmark ToProto(const Benchmark& benchmark);

// Everything but layout, digest, tapes and what is shared. `state` is one of
// the instance's.
v1::Instance ToProto(Instance& instance, const State& state);
v1::Layout LayoutOf(const Instance& instance);

google::protobuf::Duration ToProto(absl::Duration duration);
v1::BatchCounters ToProto(const DeviceWorker::BatchFigures& figures);
v1::CacheUse ToProto(CacheUse use);
v1::FeatureCache ToProto(const FeatureCache::Figures& figures);
v1::Timings TimingsOf(const DeviceWorker::Times& times, absl::Duration total);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CONVERT_CONVERT_H_
