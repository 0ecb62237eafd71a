#include "backbones/dtypes.h"

namespace backboned {

bool IsStateDtype(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf ||
         dtype == at::kBFloat16;
}

bool IsTrainableDtype(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kDouble;
}

at::ScalarType StoredDtype(at::ScalarType declared, at::ScalarType dtype) {
  return declared == at::kFloat ? dtype : declared;
}

std::string DtypeName(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kByte:
      return "uint8";
    case at::kLong:
      return "int64";
    default:
      return c10::toString(dtype);
  }
}

}  // namespace backboned
