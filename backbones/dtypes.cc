#include "backbones/dtypes.h"

#include <algorithm>
#include <array>
#include <cstddef>

namespace backboned {
namespace {

// By SafetensorsDtype.
constexpr auto kFileDtypes = std::to_array<at::ScalarType>(
    {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong,
     at::kHalf, at::kBFloat16, at::kFloat, at::kDouble});

}  // namespace

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

at::ScalarType DtypeOf(SafetensorsDtype dtype) {
  return kFileDtypes[static_cast<size_t>(dtype)];
}

SafetensorsDtype SafetensorsDtypeOf(at::ScalarType dtype) {
  const auto* const found = std::ranges::find(kFileDtypes, dtype);
  return static_cast<SafetensorsDtype>(found - kFileDtypes.begin());
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
