// Converts between the contract's tensors and LibTorch's.

#ifndef BACKBONED_SERVER_RPC_CONVERT_TENSOR_CONVERT_H_
#define BACKBONED_SERVER_RPC_CONVERT_TENSOR_CONVERT_H_

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <google/protobuf/repeated_ptr_field.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "backboned/v1/backbone_service.pb.h"
#include "backboned/v1/tensor.pb.h"
#include "backbones/layout.h"
#include "backbones/selection.h"
#include "backbones/state.h"
#include "proto/wire/tensor_writer.h"

namespace backboned::rpc {

// Element types. `FromProto` returns kInvalidArgument for an unknown one.
v1::DataType ToProto(c10::ScalarType dtype);
absl::StatusOr<c10::ScalarType> FromProto(v1::DataType dtype);

// Converts floating-point types only; returns kInvalidArgument
// (kDtypeMismatch), which calls the type `what`, for others.
absl::StatusOr<c10::ScalarType> FloatFromProto(v1::DataType dtype,
                                               std::string_view what);

// Does the same; absent if `dtype` is unspecified.
absl::StatusOr<std::optional<c10::ScalarType>> OptionalFloat(
    v1::DataType dtype, std::string_view what);

// Allocates host memory for a tensor of a spec that wire::ByteSize accepts.
at::Tensor EmptyTensor(const v1::TensorSpec& spec);

// Returns the spec of `tensor` under `name`.
v1::TensorSpec Spec(std::string_view name, const at::Tensor& tensor);

// Returns the spec [elements] of a flat tensor.
v1::TensorSpec FlatSpec(int64_t elements, c10::ScalarType dtype);

// Returns spec and presence of one gradient for each parameter, all sent as
// `dtype`; an undefined one is absent.
v1::FlatGrads FlatGradsOf(const std::vector<at::Tensor>& grads,
                          c10::ScalarType dtype);

// Returns the payload of a contiguous CPU tensor, which it keeps alive. An
// undefined tensor gives no bytes.
wire::Payload ToPayload(const at::Tensor& tensor);

// The tensors of an answer: each adds its bytes to the stream, in this order,
// and returns its description for the header. All are contiguous CPU tensors.
class AnswerTensors {
 public:
  v1::TensorSpec Add(std::string_view name, const at::Tensor& tensor);

  // Adds gradients of `dtype`, one for each parameter, as FlatGradsOf has them.
  v1::FlatGrads AddGrads(const std::vector<at::Tensor>& grads,
                         c10::ScalarType dtype);

  // Returns the stream behind the header.
  std::vector<wire::Payload> Payloads() && { return std::move(payloads_); }

 private:
  std::vector<wire::Payload> payloads_;
};

// Which of an instance's parameters or buffers a header means.
Selection FromProto(const v1::Selection& selection);

// Returns the sum of a header's sizes in bytes, or kInvalidArgument
// (kShapeMismatch) if it exceeds an int64.
absl::StatusOr<int64_t> TotalBytes(std::span<const int64_t> sizes);

// Returns the element type of the floating-point buffers on the wire, or
// kInvalidArgument unless they have one type and `specs` otherwise equal those
// of the buffers in `slices`, all whole, with their names.
absl::StatusOr<std::optional<c10::ScalarType>> CheckBufferSpecs(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& specs,
    std::span<const Slice> slices, const Layout& layout, const State& state);

// Returns the element type of `spec`, or kInvalidArgument unless `spec` is
// [elements] of a floating-point type.
absl::StatusOr<c10::ScalarType> CheckFlatSpec(const v1::TensorSpec& spec,
                                              int64_t elements);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CONVERT_TENSOR_CONVERT_H_
