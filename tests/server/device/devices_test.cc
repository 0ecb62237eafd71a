#include "server/device/devices.h"

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

}  // namespace
}  // namespace backboned
