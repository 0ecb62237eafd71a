// The element types that a network can have.

#ifndef BACKBONED_BACKBONES_DTYPES_H_
#define BACKBONED_BACKBONES_DTYPES_H_

#include <c10/core/ScalarType.h>

#include <string>

#include "base/safetensors.h"

namespace backboned {

// Returns whether a State's parameters may have `dtype`: float32, float64,
// float16, bfloat16.
bool IsStateDtype(at::ScalarType dtype);

// Returns whether a State of `dtype` can be trained: float32, float64.
bool IsTrainableDtype(at::ScalarType dtype);

// Returns the dtype, in a State of `dtype`, of a tensor whose dtype in the
// layout is `declared`.
at::ScalarType StoredDtype(at::ScalarType declared, at::ScalarType dtype);

// Returns the dtype of a file's elements, and back, which must be possible.
at::ScalarType DtypeOf(SafetensorsDtype dtype);
SafetensorsDtype SafetensorsDtypeOf(at::ScalarType dtype);

// Returns the name in NumPy and PyTorch: `float32`, `int64`.
std::string DtypeName(at::ScalarType dtype);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_DTYPES_H_
