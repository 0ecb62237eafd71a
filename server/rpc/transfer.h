// Whole downloads and uploads of an instance's tensors.

#ifndef BACKBONED_SERVER_RPC_TRANSFER_H_
#define BACKBONED_SERVER_RPC_TRANSFER_H_

#include <ATen/core/Tensor.h>
#include <google/protobuf/message_lite.h>
#include <google/protobuf/repeated_ptr_field.h>

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "backboned/v1/tensor.pb.h"
#include "backbones/layout.h"
#include "backbones/selection.h"
#include "server/host.h"
#include "server/instance.h"
#include "server/rpc/call.h"
#include "server/rpc/message_stream.h"

namespace backboned::rpc {

// Sends `header` and the bytes of `tensors`, which live on the instance's
// device; undefined ones have none. On a CPU they are sent from where they are.
absl::Status Download(Call& call, MessageStream& stream,
                      const Instance& instance,
                      const google::protobuf::MessageLite& header,
                      std::vector<at::Tensor> tensors);

// Receives the rest of the stream into fresh host tensors for `slices` of
// `tensors`.
//
// kResourceExhausted if the bytes in flight would be too many, before anything
// is allocated; MessageStream::ReadTensors's errors otherwise.
absl::StatusOr<std::vector<at::Tensor>> Upload(
    Host& host, MessageStream& stream, std::span<const at::Tensor> tensors,
    std::span<const Slice> slices);

// Returns kInvalidArgument unless `specs` are those of the buffers in `slices`,
// all whole, with their names.
absl::Status CheckBufferSpecs(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& specs,
    std::span<const Slice> slices, const Layout& layout);

// Returns kInvalidArgument unless `spec` is [elements] float32.
absl::Status CheckFlatSpec(const v1::TensorSpec& spec, int64_t elements);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSFER_H_
