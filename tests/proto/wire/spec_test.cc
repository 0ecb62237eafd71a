#include "proto/wire/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace backboned::wire {
namespace {

using ::absl::StatusCode;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

v1::TensorSpec Spec(v1::DataType dtype, const std::vector<int64_t>& shape) {
  v1::TensorSpec spec;
  spec.set_name("x");
  spec.set_dtype(dtype);
  spec.mutable_shape()->Assign(shape.begin(), shape.end());
  return spec;
}

TEST(SpecTest, KnowsEveryDataType) {
  const google::protobuf::EnumDescriptor* descriptor =
      v1::DataType_descriptor();
  for (int i = 0; i < descriptor->value_count(); ++i) {
    const auto dtype =
        static_cast<v1::DataType>(descriptor->value(i)->number());
    const bool specified = dtype != v1::DATA_TYPE_UNSPECIFIED;
    EXPECT_EQ(ElementBytes(dtype) > 0, specified) << v1::DataType_Name(dtype);
    EXPECT_EQ(DataTypeName(dtype) != "unspecified", specified);
  }
  EXPECT_EQ(DataTypeName(v1::DATA_TYPE_BFLOAT16), "bfloat16");
  EXPECT_EQ(ElementBytes(v1::DATA_TYPE_BFLOAT16), 2);
}

TEST(SpecTest, PrintsShapesAsPython) {
  EXPECT_EQ(ShapeString(Spec(v1::DATA_TYPE_UINT8, {4, 3, 32, 32})),
            "[4, 3, 32, 32]");
  EXPECT_EQ(ShapeString(v1::TensorSpec()), "[]");
  EXPECT_EQ(ShapeString(std::vector<int64_t>{-1}), "[-1]");
}

TEST(SpecTest, CountsBytes) {
  EXPECT_THAT(ByteSize(Spec(v1::DATA_TYPE_FLOAT32, {4, 3, 32, 32})),
              IsOkAndHolds(49152));
  EXPECT_THAT(ByteSize(Spec(v1::DATA_TYPE_INT64, {})), IsOkAndHolds(8));
  EXPECT_THAT(ByteSize(Spec(v1::DATA_TYPE_UINT8, {7, 0, 3})), IsOkAndHolds(0));
}

TEST(SpecTest, AddsBytesOfSeveralTensors) {
  google::protobuf::RepeatedPtrField<v1::TensorSpec> specs;
  EXPECT_THAT(ByteSize(specs), IsOkAndHolds(0));
  *specs.Add() = Spec(v1::DATA_TYPE_FLOAT64, {2, 2});
  *specs.Add() = Spec(v1::DATA_TYPE_UINT8, {5});
  EXPECT_THAT(ByteSize(specs), IsOkAndHolds(37));
}

TEST(SpecTest, RefusesASumOverTheLargestNumber) {
  google::protobuf::RepeatedPtrField<v1::TensorSpec> specs;
  *specs.Add() = Spec(v1::DATA_TYPE_UINT8, {INT64_MAX});
  *specs.Add() = Spec(v1::DATA_TYPE_UINT8, {1});
  EXPECT_THAT(ByteSize(specs),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("too large")));
}

TEST(SpecTest, RefusesNegativeSizes) {
  EXPECT_THAT(ByteSize(Spec(v1::DATA_TYPE_UINT8, {3, -1})),
              StatusIs(StatusCode::kInvalidArgument,
                       "tensor \"x\" of shape [3, -1] has a negative size"));
  EXPECT_THAT(ByteSize(Spec(v1::DATA_TYPE_UINT8, {INT64_MIN, 0})),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(SpecTest, RefusesHugeShapes) {
  const int64_t huge = int64_t{1} << 32;
  const std::vector<int64_t> shapes[] = {
      {huge, huge}, {INT64_MAX}, {huge, huge, 0}, {0, huge, huge}};
  for (const auto& shape : shapes) {
    EXPECT_THAT(ByteSize(Spec(v1::DATA_TYPE_FLOAT32, shape)),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("too large")));
  }
}

TEST(SpecTest, RefusesMoreThanEightDimensions) {
  const std::vector<int64_t> shape(9, 1);
  EXPECT_THAT(ByteSize(Spec(v1::DATA_TYPE_UINT8, shape)),
              StatusIs(StatusCode::kInvalidArgument,
                       "tensor \"x\" has 9 dimensions, at most 8 are allowed"));
  EXPECT_THAT(ByteSize(Spec(v1::DATA_TYPE_UINT8, std::vector<int64_t>(8, 2))),
              IsOkAndHolds(256));
}

TEST(SpecTest, RefusesUnknownElementTypes) {
  for (const int number : {0, 77}) {
    EXPECT_THAT(ByteSize(Spec(static_cast<v1::DataType>(number), {1})),
                StatusIs(StatusCode::kInvalidArgument,
                         HasSubstr("element type " + std::to_string(number))));
  }
}

TEST(SpecTest, QuotesLittleOfALongName) {
  v1::TensorSpec spec;
  spec.set_name(std::string(100'000, '\n'));
  EXPECT_THAT(std::string(ByteSize(spec).status().message()),
              AllOf(HasSubstr("\\n"), SizeIs(testing::Lt(300))));
}

}  // namespace
}  // namespace backboned::wire
