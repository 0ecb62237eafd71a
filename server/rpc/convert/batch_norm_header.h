// Resolves the BatchNorm overrides of a header.

#ifndef BACKBONED_SERVER_RPC_CONVERT_BATCH_NORM_HEADER_H_
#define BACKBONED_SERVER_RPC_CONVERT_BATCH_NORM_HEADER_H_

#include <google/protobuf/repeated_ptr_field.h>

#include <vector>

#include "absl/status/statusor.h"
#include "backboned/v1/backbone_service.pb.h"
#include "backbones/batch_norm.h"
#include "backbones/layout.h"

namespace backboned::rpc {

// Returns ResolveBatchNorm of a header's overrides.
absl::StatusOr<std::vector<BatchNormMode>> BatchNormOf(
    const google::protobuf::RepeatedPtrField<v1::BatchNormOverride>& overrides,
    const Layout& layout);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CONVERT_BATCH_NORM_HEADER_H_
