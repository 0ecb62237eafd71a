#include "server/device/precision.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <thread>

namespace backboned {
namespace {

const c10::Device kGpu(c10::DeviceType::CUDA, 0);

bool Products() { return at::globalContext().allowTF32CuBLAS(); }
bool Convolutions() {
  return at::globalContext().allowTF32CuDNN(at::Float32Op::CONV);
}

TEST(PrecisionTest, SetsTheSwitchesOfAGpuAlone) {
  {
    const ScopedPrecision scope(kGpu, Precision::kTf32);
    EXPECT_TRUE(Products());
    EXPECT_TRUE(Convolutions());
  }
  {
    const ScopedPrecision scope(kGpu, Precision::kHighest);
    EXPECT_FALSE(Products());
    EXPECT_FALSE(Convolutions());
  }
  for (const Precision precision :
       {Precision::kBfloat16, Precision::kDefault}) {
    const ScopedPrecision scope(kGpu, precision);
    EXPECT_FALSE(Products());
    EXPECT_TRUE(Convolutions());
  }
  const ScopedPrecision scope(c10::Device(c10::kCPU), Precision::kTf32);
  EXPECT_FALSE(Products());
}

TEST(PrecisionTest, NobodyWaitsWithoutEndAndNobodySeesAnothers) {
  std::atomic<bool> ended = false;
  std::atomic<int> wrong = 0;
  std::array<std::thread, 2> others;
  for (std::thread& other : others) {
    other = std::thread([&] {
      while (!ended) {
        const ScopedPrecision scope(kGpu, Precision::kDefault);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        wrong += Products() ? 1 : 0;
      }
    });
  }
  for (int i = 0; i < 20; ++i) {
    const ScopedPrecision scope(kGpu, Precision::kTf32);
    wrong += Products() ? 0 : 1;
  }
  ended = true;
  for (std::thread& other : others) other.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace backboned
