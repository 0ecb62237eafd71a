#include "server/device/devices.h"

#include <ATen/Context.h>
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(DevicesTest, OpensTheProcessor) {
  EXPECT_THAT(OpenDevices({"cpu"}),
              IsOkAndHolds(ElementsAre(c10::Device(c10::DeviceType::CPU))));
}

TEST(DevicesTest, RefusesUnknownNamesAndListsTheValidOnes) {
  for (const char* name :
       {"tpu", "", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:64", "cpu:0"}) {
    EXPECT_THAT(OpenDevices({"cpu", name}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr(name), HasSubstr("cpu, cuda"))))
        << name;
  }
}

TEST(DevicesTest, TheWarmUpDrawsNoRandomNumbers) {
  const at::Generator& drawn =
      at::globalContext().defaultGenerator(at::Device(at::kCPU));
  const at::Tensor before = drawn.get_state();
  const bool gradients = at::GradMode::is_enabled();
  WarmUp(c10::Device(c10::DeviceType::CPU));
  EXPECT_TRUE(before.equal(drawn.get_state()));
  EXPECT_EQ(at::GradMode::is_enabled(), gradients);
}

}  // namespace
}  // namespace backboned
