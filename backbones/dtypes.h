// The element types that a network can have.

#ifndef BACKBONED_BACKBONES_DTYPES_H_
#define BACKBONED_BACKBONES_DTYPES_H_

#include <c10/core/ScalarType.h>

#include <string>

namespace backboned {

// Whether a State's parameters can have it: float32, float64, float16,
// bfloat16.
bool IsStateDtype(at::ScalarType dtype);

// Whether a State of it can be trained: float32, float64.
bool IsTrainableDtype(at::ScalarType dtype);

// Returns the dtype that a tensor which a layout declares as `declared` has in
// a State of `dtype`.
at::ScalarType StoredDtype(at::ScalarType declared, at::ScalarType dtype);

// Returns its name as NumPy and PyTorch spell it: `float32`, `int64`.
std::string DtypeName(at::ScalarType dtype);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_DTYPES_H_
