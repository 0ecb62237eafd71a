// What a tensor's spec says: names, sizes, and whether they make sense.

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

// Dimensions that a tensor on the wire has at most.
inline constexpr int kMaxDimensions = 8;

// Bytes of one element; 0 for DATA_TYPE_UNSPECIFIED and unknown values.
int64_t ElementBytes(v1::DataType dtype);

// `float32`, `uint8`, ...; `unspecified` for DATA_TYPE_UNSPECIFIED and unknown
// values.
std::string_view DataTypeName(v1::DataType dtype);

// `[4, 3, 32, 32]`; `[]` for a scalar.
std::string ShapeString(std::span<const int64_t> shape);
std::string ShapeString(const v1::TensorSpec& spec);

// Elements of a tensor of this shape.
//
// Returns kInvalidArgument for more than kMaxDimensions dimensions, a negative
// size, or a shape whose non-zero sizes multiply to more than an int64, also if
// another size is 0.
absl::StatusOr<int64_t> ElementCount(const v1::TensorSpec& spec);

// Bytes of the tensor.
//
// Returns kInvalidArgument as ElementCount does, and if the element type is not
// one or the bytes are more than an int64.
absl::StatusOr<int64_t> ByteSize(const v1::TensorSpec& spec);

// Bytes of all the tensors; errors as for one, also if only the sum is too
// large.
absl::StatusOr<int64_t> ByteSize(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& specs);

}  // namespace backboned::wire

#endif  // BACKBONED_PROTO_WIRE_SPEC_H_
