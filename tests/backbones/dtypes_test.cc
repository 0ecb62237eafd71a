#include "backbones/dtypes.h"

#include <gtest/gtest.h>

namespace backboned {
namespace {

TEST(DtypesTest, AStateHoldsFourAndTrainsInTwo) {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    EXPECT_TRUE(IsStateDtype(dtype) && IsTrainableDtype(dtype));
  }
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    EXPECT_TRUE(IsStateDtype(dtype) && !IsTrainableDtype(dtype));
  }
  for (const at::ScalarType dtype : {at::kByte, at::kLong, at::kInt}) {
    EXPECT_FALSE(IsStateDtype(dtype) || IsTrainableDtype(dtype));
  }
}

TEST(DtypesTest, IntegersAreStoredAsDeclared) {
  EXPECT_EQ(StoredDtype(at::kFloat, at::kHalf), at::kHalf);
  EXPECT_EQ(StoredDtype(at::kLong, at::kHalf), at::kLong);
}

TEST(DtypesTest, NamesAreThoseOfPython) {
  EXPECT_EQ(DtypeName(at::kFloat), "float32");
  EXPECT_EQ(DtypeName(at::kDouble), "float64");
  EXPECT_EQ(DtypeName(at::kHalf), "float16");
  EXPECT_EQ(DtypeName(at::kBFloat16), "bfloat16");
  EXPECT_EQ(DtypeName(at::kByte), "uint8");
  EXPECT_EQ(DtypeName(at::kLong), "int64");
}

}  // namespace
}  // namespace backboned
