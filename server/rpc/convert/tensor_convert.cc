#include "server/rpc/convert/tensor_convert.h"

#include <ATen/ops/empty.h>

#include <cstddef>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "backbones/dtypes.h"
#include "base/errors.h"
#include "proto/wire/spec.h"
#include "server/device/host_view.h"

namespace backboned::rpc {

v1::DataType ToProto(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Float:
      return v1::DATA_TYPE_FLOAT32;
    case c10::ScalarType::Double:
      return v1::DATA_TYPE_FLOAT64;
    case c10::ScalarType::Half:
      return v1::DATA_TYPE_FLOAT16;
    case c10::ScalarType::BFloat16:
      return v1::DATA_TYPE_BFLOAT16;
    case c10::ScalarType::Byte:
      return v1::DATA_TYPE_UINT8;
    case c10::ScalarType::Long:
      return v1::DATA_TYPE_INT64;
    default:
      return v1::DATA_TYPE_UNSPECIFIED;
  }
}

absl::StatusOr<c10::ScalarType> FromProto(v1::DataType dtype) {
  switch (dtype) {
    case v1::DATA_TYPE_FLOAT32:
      return c10::ScalarType::Float;
    case v1::DATA_TYPE_FLOAT64:
      return c10::ScalarType::Double;
    case v1::DATA_TYPE_FLOAT16:
      return c10::ScalarType::Half;
    case v1::DATA_TYPE_BFLOAT16:
      return c10::ScalarType::BFloat16;
    case v1::DATA_TYPE_UINT8:
      return c10::ScalarType::Byte;
    case v1::DATA_TYPE_INT64:
      return c10::ScalarType::Long;
    default:
      return Error(absl::StatusCode::kInvalidArgument, Reason::kDtypeMismatch,
                   absl::StrCat("element type ", static_cast<int>(dtype),
                                " is unknown"));
  }
}

absl::StatusOr<c10::ScalarType> FloatFromProto(v1::DataType dtype,
                                               std::string_view what) {
  absl::StatusOr<c10::ScalarType> type = FromProto(dtype);
  if (type.ok() && IsStateDtype(*type)) return type;
  return Error(absl::StatusCode::kInvalidArgument, Reason::kDtypeMismatch,
               absl::StrCat(std::string(what), " is ",
                            std::string(wire::DataTypeName(dtype)),
                            ", expected float32, float64, float16 or "
                            "bfloat16"));
}

absl::StatusOr<std::optional<c10::ScalarType>> OptionalFloat(
    v1::DataType dtype, std::string_view what) {
  if (dtype == v1::DATA_TYPE_UNSPECIFIED) return std::nullopt;
  absl::StatusOr<c10::ScalarType> type = FloatFromProto(dtype, what);
  if (!type.ok()) return type.status();
  return std::optional(*type);
}

at::Tensor EmptyTensor(const v1::TensorSpec& spec) {
  const std::vector<int64_t> shape(spec.shape().begin(), spec.shape().end());
  return at::empty(shape, *FromProto(spec.dtype()));
}

v1::TensorSpec Spec(std::string_view name, const at::Tensor& tensor) {
  v1::TensorSpec spec;
  spec.set_name(std::string(name));
  spec.set_dtype(ToProto(tensor.scalar_type()));
  for (int64_t size : tensor.sizes()) spec.add_shape(size);
  return spec;
}

v1::TensorSpec FlatSpec(int64_t elements, c10::ScalarType dtype) {
  v1::TensorSpec spec;
  spec.set_dtype(ToProto(dtype));
  spec.add_shape(elements);
  return spec;
}

v1::FlatGrads FlatGradsOf(const std::vector<at::Tensor>& grads,
                          c10::ScalarType dtype) {
  v1::FlatGrads result;
  int64_t elements = 0;
  for (const at::Tensor& grad : grads) {
    result.add_present(grad.defined());
    if (grad.defined()) elements += grad.numel();
  }
  *result.mutable_spec() = FlatSpec(elements, dtype);
  return result;
}

wire::Payload ToPayload(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  return {.bytes = Bytes(tensor),
          .keep_alive = std::make_shared<at::Tensor>(tensor)};
}

v1::TensorSpec AnswerTensors::Add(std::string_view name,
                                  const at::Tensor& tensor) {
  payloads_.push_back(ToPayload(tensor));
  return Spec(name, tensor);
}

v1::FlatGrads AnswerTensors::AddGrads(const std::vector<at::Tensor>& grads,
                                      c10::ScalarType dtype) {
  for (const at::Tensor& grad : grads) payloads_.push_back(ToPayload(grad));
  return FlatGradsOf(grads, dtype);
}

Selection FromProto(const v1::Selection& selection) {
  Selection result;
  result.globs = {selection.globs().begin(), selection.globs().end()};
  if (selection.has_range()) {
    result.range = {selection.range().begin(), selection.range().end()};
  }
  return result;
}

absl::StatusOr<int64_t> TotalBytes(std::span<const int64_t> sizes) {
  int64_t total = 0;
  for (const int64_t size : sizes) {
    if (__builtin_add_overflow(total, size, &total)) {
      return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
                   "the sizes of the header's tensors add up to more than 2^63 "
                   "- 1 bytes");
    }
  }
  return total;
}

absl::StatusOr<std::optional<c10::ScalarType>> CheckBufferSpecs(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& specs,
    std::span<const Slice> slices, const Layout& layout, const State& state) {
  if (specs.size() != static_cast<int>(slices.size())) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
                 absl::StrCat("the header has ", specs.size(),
                              " buffers, expected ", slices.size()));
  }
  std::optional<c10::ScalarType> wire_dtype;
  for (int i = 0; i < specs.size(); ++i) {
    const v1::TensorSpec& spec = specs[i];
    const Buffer& buffer =
        layout.buffers()[slices[static_cast<size_t>(i)].index];
    const std::vector<int64_t> shape(spec.shape().begin(), spec.shape().end());
    c10::ScalarType expected =
        state.buffers[slices[static_cast<size_t>(i)].index].scalar_type();
    if (c10::isFloatingType(expected)) {
      absl::StatusOr<c10::ScalarType> given =
          FloatFromProto(spec.dtype(), spec.name());
      if (given.ok() && !wire_dtype) wire_dtype = *given;
      expected = wire_dtype.value_or(expected);
    }
    const v1::DataType dtype = ToProto(expected);
    if (spec.name() == buffer.name && spec.dtype() == dtype &&
        shape == buffer.shape) {
      continue;
    }
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
        absl::StrCat("buffer ", i, " is ", Quote(spec.name()), " ",
                     std::string(wire::DataTypeName(spec.dtype())), " ",
                     wire::ShapeString(spec), ", expected ", Quote(buffer.name),
                     " ", std::string(wire::DataTypeName(dtype)), " ",
                     FormatShape(buffer.shape)));
  }
  return wire_dtype;
}

absl::StatusOr<c10::ScalarType> CheckFlatSpec(const v1::TensorSpec& spec,
                                              int64_t elements) {
  absl::StatusOr<c10::ScalarType> dtype =
      FloatFromProto(spec.dtype(), "the flat tensor");
  if (!dtype.ok()) return dtype;
  if (spec.shape_size() != 1 || spec.shape(0) != elements) {
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
        absl::StrCat("the flat tensor has shape ", wire::ShapeString(spec),
                     ", expected [", elements, "]"));
  }
  return dtype;
}

}  // namespace backboned::rpc
