#include "client/cpp/tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>

#include "tests/testing/status_matchers.h"

namespace backboned::client {
namespace {

using ::absl::StatusCode;
using ::testing::HasSubstr;

TEST(TensorsTest, GivesEachTensorAlignedMemory) {
  const absl::StatusOr<Tensors> tensors = Tensors::Allocate({3, 0, 64, 8}, 100);
  ASSERT_THAT(tensors, IsOk());
  ASSERT_EQ(tensors->size(), 4);
  for (const auto span : tensors->spans()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(span.data()) % 64, 0);
  }
  EXPECT_EQ((*tensors)[0].size(), 3);
  EXPECT_EQ((*tensors)[1].size(), 0);
  tensors->As<int64_t>(3)[0] = -1;
  EXPECT_EQ((*tensors)[3][7], std::byte{0xFF});
}

TEST(TensorsTest, RefusesMoreThanTheLimit) {
  EXPECT_THAT(Tensors::Allocate({64, 64}, 127),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("127")));
  EXPECT_THAT(Tensors::Allocate({INT64_MAX, INT64_MAX}, 1000),
              StatusIs(StatusCode::kResourceExhausted));
}

TEST(TensorsTest, SaysWhenThereIsNoMemory) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers end the program instead";
#endif
  EXPECT_THAT(Tensors::Allocate({INT64_MAX / 2}, INT64_MAX),
              StatusIs(StatusCode::kResourceExhausted, HasSubstr("no memory")));
}

}  // namespace
}  // namespace backboned::client
