// Downloads and uploads an instance's tensors.

#ifndef BACKBONED_SERVER_RPC_BACKBONE_TRANSFER_H_
#define BACKBONED_SERVER_RPC_BACKBONE_TRANSFER_H_

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <google/protobuf/message_lite.h>

#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backbones/selection.h"
#include "base/task.h"
#include "server/instances/instance.h"
#include "server/rpc/transport/call.h"
#include "server/rpc/transport/message_stream.h"
#include "server/server.h"

namespace backboned::rpc {

// Sends `header` and the bytes of `tensors`, which live on the instance's
// device, in `dtype` (absent: their own); undefined tensors have none. On a
// CPU, tensors that need no conversion are sent without a copy; those of a GPU
// are sent as they come.
Task<absl::Status> Download(Call& call, MessageStream& stream,
                            const Instance& instance,
                            const google::protobuf::MessageLite& header,
                            std::vector<at::Tensor> tensors,
                            std::optional<c10::ScalarType> dtype = {});

// Receives the rest of the stream into new tensors for `slices` of `tensors`,
// which are the instance's, on the same devices: floating-point ones of `dtype`
// (absent: of the tensors' own).
//
// Gives kResourceExhausted if the bytes in flight would be too many, before
// anything is allocated, or the errors of MessageStream::ReadTensors; of
// DeviceWorker::Run for a GPU.
Task<absl::StatusOr<std::vector<at::Tensor>>> Upload(
    Server& server, const Call& call, MessageStream& stream,
    const Instance& instance, std::span<const at::Tensor> tensors,
    std::span<const Slice> slices, std::optional<c10::ScalarType> dtype = {});

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_BACKBONE_TRANSFER_H_
