#include "backbones/initial_draw.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "tests/backbones/tensors.h"

namespace backboned {
namespace {

constexpr int64_t kEverything = std::numeric_limits<int64_t>::max();

State DrawnHead(const Layout& layout, uint64_t seed,
                at::ScalarType dtype = at::kFloat) {
  InitialDraw draw(layout, SeededGenerator(seed), dtype,
                   InitialDraw::Part::kHead);
  EXPECT_FALSE(draw.Advance(kEverything));
  return draw.Take();
}

// Returns a trunk's parameter of `elements`, with `rule`, before a head's.
Layout TrunkAndHead(int64_t elements, const InitRule& rule) {
  Layout layout;
  layout.AddInitStep(layout.AddParameter("trunk", {elements}), rule);
  layout.BeginHead();
  layout.AddInitStep(layout.AddParameter("head", {17}), NormalDraw{});
  layout.AddInitStep(layout.AddParameter("bias", {3}), UniformDraw{0, 1});
  return layout;
}

TEST(InitialDrawTest, StepByStepItGivesTheBitsOfOneGo) {
  const auto net = Build(
      "resnet18", {{"num_classes", int64_t{3}}, {"num_filters", int64_t{2}}});
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kHalf}) {
    const StatePtr expected =
        InitialState(net->layout(), SeededGenerator(5), at::kCPU, dtype);
    InitialDraw draw(net->layout(), SeededGenerator(5), dtype);
    int turns = 1;
    while (draw.Advance(1)) ++turns;
    EXPECT_GT(turns, 60);
    const State state = draw.Take();
    EXPECT_TRUE(BitEqual(state.params, expected->params));
    EXPECT_TRUE(BitEqual(state.buffers, expected->buffers));
    EXPECT_EQ(state.rng_state, expected->rng_state);
    EXPECT_EQ(state.grads.size(), state.params.size());
  }
}

TEST(InitialDrawTest, AHeadAloneHasTheBitsThatItHasAmongAll) {
  const std::vector<InitRule> rules = {
      UniformDraw{-1, 1, 0.5}, NormalDraw{0, 2},
      TruncatedNormalDraw{0, 0.02, -2, 2}, ConstantFill{1}};
  std::vector<int64_t> sizes(40);
  for (size_t i = 0; i < sizes.size(); ++i) {
    sizes[i] = static_cast<int64_t>(i) + 1;
  }
  // More than the generator's state holds, too.
  sizes.insert(sizes.end(), {623, 624, 625, 1248, 5000, 100'000});
  for (const InitRule& rule : rules) {
    for (const int64_t size : sizes) {
      SCOPED_TRACE(testing::Message()
                   << "rule " << rule.index() << ", " << size << " elements");
      const Layout layout = TrunkAndHead(size, rule);
      const StatePtr all = InitialState(layout, SeededGenerator(3), at::kCPU);
      const State head = DrawnHead(layout, 3);
      EXPECT_FALSE(head.params[0].defined());
      ASSERT_TRUE(BitEqual(head.params[1], all->params[1]));
      ASSERT_TRUE(BitEqual(head.params[2], all->params[2]));
    }
  }
}

TEST(InitialDrawTest, SoHaveThoseOfArchitectures) {
  const std::vector<std::pair<std::string, Arguments>> networks = {
      {"mnistmlp", {{"num_classes", int64_t{7}}}},
      {"resnet18", {{"num_classes", int64_t{7}}, {"num_filters", int64_t{3}}}},
      {"resnet32", {{"num_classes", int64_t{7}}}},
      {"efficientnet",
       {{"num_classes", int64_t{7}}, {"efficientnet_type", "b0"}}}};
  for (const auto& [name, arguments] : networks) {
    SCOPED_TRACE(name);
    const auto net = Build(name, arguments);
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const StatePtr all =
          InitialState(net->layout(), SeededGenerator(9), at::kCPU, dtype);
      const State head = DrawnHead(net->layout(), 9, dtype);
      size_t drawn = 0;
      for (size_t i = 0; i < all->params.size(); ++i) {
        if (!net->layout().parameters()[i].head) {
          EXPECT_FALSE(head.params[i].defined());
          continue;
        }
        ++drawn;
        EXPECT_TRUE(BitEqual(head.params[i], all->params[i]));
      }
      EXPECT_GT(drawn, 0U);
    }
  }
}

}  // namespace
}  // namespace backboned
