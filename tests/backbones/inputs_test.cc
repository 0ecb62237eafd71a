#include "backbones/inputs.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "tests/backbones/tensors.h"

namespace backboned {
namespace {

TEST(InputsTest, RowsAreOfEachInput) {
  Inputs inputs(at::arange(6).view({3, 2}), /*grad=*/true);
  inputs.all.push_back({.name = "p", .tensor = at::arange(3)});
  const Inputs rows = inputs.Rows(1, 2);
  EXPECT_EQ(rows.rows(), 2);
  EXPECT_TRUE(BitEqual(rows.x(), at::arange(2, 6).view({2, 2})));
  EXPECT_TRUE(rows.all[0].grad);
  EXPECT_EQ(rows.all[1].name, "p");
  EXPECT_TRUE(BitEqual(rows.all[1].tensor, at::arange(1, 3)));
}

TEST(InputsTest, BytesAreOfAllInputs) {
  Inputs inputs = at::zeros({3, 2}, at::kByte);
  inputs.all.push_back({.name = "p", .tensor = at::zeros(2, at::kDouble)});
  EXPECT_EQ(inputs.bytes(), 6 + 16);
}

TEST(InputsTest, AScalarHasNoRows) {
  EXPECT_EQ(Inputs(at::zeros({})).rows(), 0);
}

}  // namespace
}  // namespace backboned
