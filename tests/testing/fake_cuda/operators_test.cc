#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

namespace fake_cuda {
namespace {

const c10::Device kDevice(c10::DeviceType::CUDA, 0);

at::Tensor OnDevice(at::IntArrayRef shape) {
  return at::ones(shape, at::TensorOptions(kDevice));
}

at::Tensor Pinned(float value) {
  return at::full({4}, value, at::TensorOptions().pinned_memory(true));
}

void Wait() {
  const c10::impl::VirtualGuardImpl backend(kDevice.type());
  backend.synchronizeStream(backend.getStream(kDevice));
}

TEST(OperatorsTest, RefuseTensorsOfTwoDevices) {
  const at::Tensor labels = at::zeros({2}, at::kLong);
  EXPECT_THROW(at::cross_entropy_loss(OnDevice({2, 3}), labels), c10::Error);
  at::cross_entropy_loss(OnDevice({2, 3}), labels.to(kDevice));
}

TEST(OperatorsTest, TakeTheHostsScalars) {
  const at::Tensor sum = OnDevice({2}).add(at::full({}, 2.F));
  EXPECT_EQ(sum.sum().item<float>(), 6);
}

TEST(OperatorsTest, ACopyToPinnedMemoryIsThereAfterAWait) {
  at::Tensor host = Pinned(5);
  host.copy_(OnDevice({4}), /*non_blocking=*/true);
  EXPECT_FALSE(host.eq(1).any().item<bool>());
  Wait();
  EXPECT_TRUE(host.eq(1).all().item<bool>());
}

TEST(OperatorsTest, PinnedMemoryMustStayUntilItWasCopied) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // LibTorch has threads.
  at::Tensor host = Pinned(5);
  at::Tensor there = OnDevice({4});
  there.copy_(host, /*non_blocking=*/true);
  host.zero_();
  EXPECT_DEATH(Wait(), "pinned memory was written before a copy");
  host.fill_(5);
  Wait();
  EXPECT_EQ(there.sum().item<float>(), 20);
}

}  // namespace
}  // namespace fake_cuda
