#include "server/device/gpu_memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <utility>

#include "server/limits/memory_account.h"
#include "tests/server/devices.h"

namespace backboned {
namespace {

// Returns an account of 1000 bytes on GPUs.
std::shared_ptr<MemoryAccount> Account() {
  return std::make_shared<MemoryAccount>(MemoryAccount::Options{
      .name = "max-memory-bytes",
      .on_gpus = std::make_shared<MemoryAccount>("max-device-memory-bytes",
                                                 /*limit_bytes=*/1000)});
}

TEST(GpuChargeTest, CountsUntilItIsGone) {
  const auto account = Account();
  auto charge = ChargeGpuMemory(account, 600);
  EXPECT_EQ(account->live_bytes_on_gpus(), 600);
  EXPECT_EQ(account->live_bytes(), 0);
  EXPECT_THROW(ChargeGpuMemory(account, 401), OutOfMemoryBudget);
  EXPECT_EQ(account->live_bytes_on_gpus(), 600);
  charge = nullptr;
  EXPECT_EQ(account->live_bytes_on_gpus(), 0);
}

TEST(GpuChargeTest, NobodyPaysWithoutAnAccount) {
  ChargeGpuMemory(nullptr, 600);
  const auto none = std::make_shared<MemoryAccount>("max-memory-bytes");
  ChargeGpuMemory(none, 600);
  EXPECT_EQ(none->live_bytes_on_gpus(), 0);
}

class GpuMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_.is_cpu()) GTEST_SKIP() << "is for `ctest --preset fake-cuda`";
  }

  at::Tensor Floats(int64_t count) const {
    return at::empty({count}, at::device(device_).dtype(at::kFloat));
  }

  const c10::Device device_ = Devices().front();
};

TEST_F(GpuMemoryTest, ATensorIsChargedOnceUntilItsMemoryIsFree) {
  const auto account = Account();
  at::Tensor tensor = Floats(100);
  {
    const ScopedAccount scope(account);
    CountOnGpu(tensor);
    CountOnGpu(tensor);
    CountOnGpu(tensor.view({10, 10}));
    CountOnGpu({});
    CountOnGpu(at::empty({10}));
  }
  CountOnGpu(tensor);
  EXPECT_EQ(account->live_bytes_on_gpus(), 400);
  at::Tensor row = tensor.view({10, 10})[3];
  tensor.reset();
  EXPECT_EQ(account->live_bytes_on_gpus(), 400);
  std::thread([&row] { row.reset(); }).join();
  EXPECT_EQ(account->live_bytes_on_gpus(), 0);
}

TEST_F(GpuMemoryTest, ATensorKeepsItsValuesAndItsMemoryGoesBack) {
  const int64_t before = GpuMemoryOf(device_).allocated;
  at::Tensor tensor = at::ones({100}, at::device(device_));
  CountOnGpu(tensor);
  EXPECT_TRUE(tensor.add(1).cpu().equal(at::full({100}, 2.0F)));
  EXPECT_GT(GpuMemoryOf(device_).allocated, before);
  tensor.reset();
  EXPECT_EQ(GpuMemoryOf(device_).allocated, before);
}

TEST_F(GpuMemoryTest, ATensorOverTheLimitIsNotCharged) {
  const auto account = Account();
  at::Tensor tensor = Floats(300);
  const ScopedAccount scope(account);
  EXPECT_THROW(CountOnGpu(tensor), OutOfMemoryBudget);
  EXPECT_EQ(account->live_bytes_on_gpus(), 0);
  tensor.reset();
  at::Tensor smaller = Floats(250);
  CountOnGpu(smaller);
  EXPECT_EQ(account->live_bytes_on_gpus(), 1000);
}

TEST_F(GpuMemoryTest, AMeterTellsWhatItsThreadKeeps) {
  at::Tensor before = Floats(5000);
  const GpuMeter meter(device_);
  const at::Tensor kept = Floats(5000);
  const int64_t bytes = meter.bytes();
  EXPECT_GE(bytes, 20'000);  // Allocators round.
  Floats(70'000);
  at::empty({70'000});
  std::thread([this] { Floats(9).reset(); }).join();
  EXPECT_EQ(meter.bytes(), bytes);
  std::thread([&before] { before.reset(); }).join();  // Another thread's doing.
  EXPECT_EQ(meter.bytes(), bytes);
}

TEST_F(GpuMemoryTest, WhatIsPooledGoesBack) {
  Floats(70'000);
  EXPECT_GE(GpuMemoryOf(device_).pooled, 280'000);
  const int64_t free_before = GpuMemoryOf(device_).free;
  ReleasePooledGpuMemory(device_);
  EXPECT_EQ(GpuMemoryOf(device_).pooled, 0);
  EXPECT_GE(GpuMemoryOf(device_).free, free_before + 280'000);
}

}  // namespace
}  // namespace backboned
