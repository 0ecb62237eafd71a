// Checks the spec of a tensor, and computes its sizes.

#ifndef BACKBONED_PROTO_WIRE_SPEC_H_
#define BACKBONED_PROTO_WIRE_SPEC_H_

#include <google/protobuf/repeated_ptr_field.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "backboned/v1/tensor.pb.h"

namespace backboned::wire {

// The most dimensions of a tensor on the wire.
inline constexpr int kMaxDimensions = 8;

// Returns the bytes of an element; 0 for DATA_TYPE_UNSPECIFIED, unknown values.
int64_t ElementBytes(v1::DataType dtype);

// Returns `float32`, `uint8`, ...; `unspecified` for DATA_TYPE_UNSPECIFIED and
// unknown values.
std::string_view DataTypeName(v1::DataType dtype);

// Returns `[4, 3, 32, 32]`; `[]` for a scalar.
std::string ShapeString(std::span<const int64_t> shape);
std::string ShapeString(const v1::TensorSpec& spec);

// Returns the number of elements of a tensor of this shape.
//
// Returns kInvalidArgument for more than kMaxDimensions dimensions, a negative
// size, or a shape whose non-zero sizes have a product above an int64, even if
// another size is 0.
absl::StatusOr<int64_t> ElementCount(const v1::TensorSpec& spec);

// Returns the bytes of the tensor.
//
// Returns ElementCount's errors, and kInvalidArgument if the element type is
// unknown or the bytes exceed an int64.
absl::StatusOr<int64_t> ByteSize(const v1::TensorSpec& spec);

// Returns the bytes of all tensors; returns the errors for one tensor, and
// kInvalidArgument if the sum is too large.
absl::StatusOr<int64_t> ByteSize(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& specs);

}  // namespace backboned::wire

#endif  // BACKBONED_PROTO_WIRE_SPEC_H_
