// Tests the images that convolutional networks take: accepted input runs, and
// PyTorch's layers refuse the refused input too.

#include "backbones/image_input.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "backbones/forward.h"
#include "base/errors.h"
#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

struct Case {
  std::string architecture;
  Arguments arguments;
};

std::vector<Case> Cases() {
  const Arguments small = {{"num_classes", 3}, {"num_filters", 4}};
  return {{"resnet18", small},
          {"preact-resnet18", small},
          {"resnet18-spr", small},
          {"resnet32", {{"num_classes", 3}, {"depth", 8}}},
          {"resnet50", {{"num_classes", 3}, {"width_per_group", 4}}},
          {"wide-resnet",
           {{"num_classes", 3}, {"depth", 10}, {"widen_factor", 1}}}};
}

bool Runs(const Architecture& net, const State& state,
          const std::vector<int64_t>& shape, bool training) {
  try {
    Forward(net, state, Rand(1, shape), {.training = training});
    return true;
  } catch (const c10::Error&) {
    return false;
  }
}

TEST(ImageInputTest, IsAcceptedExactlyIfTheNetworkRuns) {
  for (const Case& each : Cases()) {
    const auto net = Build(each.architecture, each.arguments);
    const StatePtr state = Seeded(*net);
    for (const int64_t height : {1, 28, 29, 60, 61}) {
      for (const int64_t width : {height, height + 4, 2 * height}) {
        for (const auto& [batch, training] :
             {std::pair(1, true), std::pair(1, false), std::pair(2, true)}) {
          const std::vector<int64_t> shape = {batch, 3, height, width};
          EXPECT_EQ(net->CheckInput(shape, training).ok(),
                    Runs(*net, *state, shape, training))
              << each.architecture << FormatShape(shape) << training;
        }
      }
    }
  }
}

TEST(ImageInputTest, IsRefusedWithBothShapes) {
  for (const Case& each : Cases()) {
    const auto net = Build(each.architecture, each.arguments);
    EXPECT_THAT(net->CheckInput(std::vector<int64_t>{4, 1, 32, 32}, false),
                StatusIs(kInvalid,
                         "input has shape [4, 1, 32, 32], expected "
                         "[N, 3, H, W]"));
    EXPECT_THAT(net->CheckInput(std::vector<int64_t>{0, 3, 32, 32}, false),
                StatusIs(kInvalid, HasSubstr("no size of 0")));
  }
}

TEST(ImageInputTest, NamesTheSidesOfResNet32) {
  const auto net = Build("resnet32", {{"num_classes", 3}});
  EXPECT_THAT(net->CheckInput(std::vector<int64_t>{4, 3, 64, 64}, false),
              StatusIs(kInvalid,
                       "input has shape [4, 3, 64, 64], expected [N, 3, H, W] "
                       "with H = W = 32 (29 to 60 pool to 1x1, these to 2x2)"));
}

}  // namespace
}  // namespace backboned
