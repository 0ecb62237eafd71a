#include "proto/wire/spec.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace backboned::wire {
namespace {

// The most bytes of a peer's name in an error.
constexpr size_t kQuotedBytes = 64;

absl::Status Refuse(const v1::TensorSpec& spec, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(
      "tensor \"", absl::CHexEscape(spec.name().substr(0, kQuotedBytes)), "\" ",
      what));
}

absl::Status RefuseSize(const v1::TensorSpec& spec) {
  return Refuse(spec,
                absl::StrCat("of shape ", ShapeString(spec), " is too large"));
}

}  // namespace

int64_t ElementBytes(v1::DataType dtype) {
  switch (dtype) {
    case v1::DATA_TYPE_FLOAT64:
    case v1::DATA_TYPE_INT64:
      return 8;
    case v1::DATA_TYPE_FLOAT32:
      return 4;
    case v1::DATA_TYPE_FLOAT16:
    case v1::DATA_TYPE_BFLOAT16:
      return 2;
    case v1::DATA_TYPE_UINT8:
      return 1;
    default:
      return 0;
  }
}

std::string_view DataTypeName(v1::DataType dtype) {
  switch (dtype) {
    case v1::DATA_TYPE_FLOAT32:
      return "float32";
    case v1::DATA_TYPE_FLOAT64:
      return "float64";
    case v1::DATA_TYPE_FLOAT16:
      return "float16";
    case v1::DATA_TYPE_BFLOAT16:
      return "bfloat16";
    case v1::DATA_TYPE_UINT8:
      return "uint8";
    case v1::DATA_TYPE_INT64:
      return "int64";
    default:
      return "unspecified";
  }
}

std::string ShapeString(std::span<const int64_t> shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::string ShapeString(const v1::TensorSpec& spec) {
  return ShapeString(
      std::span(spec.shape().data(), static_cast<size_t>(spec.shape_size())));
}

absl::StatusOr<int64_t> ElementCount(const v1::TensorSpec& spec) {
  if (spec.shape_size() > kMaxDimensions) {
    return Refuse(
        spec, absl::StrCat("has ", spec.shape_size(), " dimensions, at most ",
                           kMaxDimensions, " are allowed"));
  }
  int64_t count = 1;  // Of the sizes that are not 0.
  bool empty = false;
  for (const int64_t size : spec.shape()) {
    if (size < 0) {
      return Refuse(spec, absl::StrCat("of shape ", ShapeString(spec),
                                       " has a negative size"));
    }
    empty = empty || size == 0;
    if (__builtin_mul_overflow(count, std::max<int64_t>(size, 1), &count)) {
      return RefuseSize(spec);
    }
  }
  return empty ? 0 : count;
}

absl::StatusOr<int64_t> ByteSize(const v1::TensorSpec& spec) {
  const int64_t element_bytes = ElementBytes(spec.dtype());
  if (element_bytes == 0) {
    return Refuse(spec,
                  absl::StrCat("has the unknown element type ", spec.dtype()));
  }
  const absl::StatusOr<int64_t> count = ElementCount(spec);
  if (!count.ok()) return count;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(*count, element_bytes, &bytes)) {
    return RefuseSize(spec);
  }
  return bytes;
}

absl::StatusOr<int64_t> ByteSize(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& specs) {
  int64_t total = 0;
  for (const v1::TensorSpec& spec : specs) {
    const absl::StatusOr<int64_t> bytes = ByteSize(spec);
    if (!bytes.ok()) return bytes;
    if (__builtin_add_overflow(total, *bytes, &total)) return RefuseSize(spec);
  }
  return total;
}

}  // namespace backboned::wire
