#include "server/memory/memory_allocator.h"

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <memory>

#include "base/errors.h"
#include "server/limits/memory_account.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

TEST(MemoryAllocatorTest, TensorsLiveInTheRoom) {
  const int64_t before = CpuMemory().allocated_bytes();
  {
    const at::Tensor tensor = at::empty({1000, 1000});
    EXPECT_GE(CpuMemory().allocated_bytes() - before, 4'000'000);
  }
  EXPECT_EQ(CpuMemory().allocated_bytes(), before);
}

TEST(MemoryAllocatorTest, AccountPaysForWhatIsAliveOnly) {
  CpuMemory();
  const auto account = std::make_shared<MemoryAccount>("max-tape-bytes");
  at::Tensor kept;
  {
    const ScopedAccount scope(account);
    const at::Tensor x = at::ones({100, 100});
    kept = (x * 2 + x).sum(0);
    EXPECT_EQ(account->live_bytes(), 40'000 + 400);
  }
  EXPECT_EQ(account->live_bytes(), 400);
  EXPECT_GE(account->peak_bytes(), 3 * 40'000);
  kept = at::Tensor();
  EXPECT_EQ(account->live_bytes(), 0);
}

TEST(MemoryAllocatorTest, BudgetErrorPassesThroughLibTorch) {
  CpuMemory();
  const auto account =
      std::make_shared<MemoryAccount>("max-tape-bytes", 100'000);
  const at::Tensor x = at::ones({100, 100});
  const ScopedAccount scope(account);
  at::Tensor y = x + 1;
  try {
    y = x.matmul(y).relu() + y;
    ADD_FAILURE() << "three tensors of 40,000 bytes fit into 100,000";
  } catch (const OutOfMemoryBudget& error) {
    EXPECT_EQ(LimitOf(error.status())->name, "max-tape-bytes");
    EXPECT_EQ(LimitOf(error.status())->requested, 120'000);
  }
  EXPECT_EQ(account->live_bytes(), 40'000);
  EXPECT_EQ((x + 1).sum().item<float>(), 20'000);  // The next call works.
}

TEST(MemoryAllocatorTest, ServesRawUsers) {
  const int64_t before = CpuMemory().allocated_bytes();
  c10::Allocator* allocator = c10::GetCPUAllocator();
  void* data = allocator->raw_allocate(10'000);
  EXPECT_GT(CpuMemory().allocated_bytes(), before);
  allocator->raw_deallocate(data);
  EXPECT_EQ(CpuMemory().allocated_bytes(), before);
}

TEST(MemoryAllocatorTest, EmptyTensorTakesNothing) {
  const int64_t before = CpuMemory().allocated_bytes();
  const at::Tensor tensor = at::empty({0, 10});
  EXPECT_EQ(CpuMemory().allocated_bytes(), before);
}

}  // namespace
}  // namespace backboned
