#include "backbones/together.h"

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/backbones/tensors.h"

namespace backboned {
namespace {

std::shared_ptr<const Architecture> Net(int64_t num_classes) {
  return Build("resnet18",
               {{"num_classes", num_classes}, {"num_filters", int64_t{4}}});
}

bool Close(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && at::allclose(a, b, 1e-4, 1e-5);
}

// A network, a fork of it with five classes, and the options of both.
class TogetherTest : public ::testing::Test {
 protected:
  ForwardPart Part(const at::Tensor& x,
                   const ForwardOptions& options = kOut) const {
    return {.architecture = net_.get(),
            .state = state_.get(),
            .inputs = x,
            .options = &options};
  }

  ForwardPart OfFork(const at::Tensor& x,
                     const ForwardOptions& options = kOut) const {
    return {.architecture = fork_net_.get(),
            .state = fork_.get(),
            .inputs = x,
            .options = &options};
  }

  static std::vector<at::Tensor> Alone(const ForwardPart& part) {
    return Forward(*part.architecture, *part.state, part.inputs, *part.options)
        .outputs;
  }

  static void ExpectAsAlone(const std::vector<ForwardPart>& parts) {
    const std::vector<ForwardOutput> together = ForwardTogether(parts);
    ASSERT_EQ(together.size(), parts.size());
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::vector<at::Tensor> alone = Alone(parts[i]);
      ASSERT_EQ(together[i].outputs.size(), alone.size());
      for (size_t j = 0; j < alone.size(); ++j) {
        EXPECT_TRUE(Close(together[i].outputs[j], alone[j])) << i << " " << j;
        EXPECT_TRUE(together[i].outputs[j].is_contiguous());
      }
    }
  }

  // Returns the State with one parameter, found by name, written.
  StatePtr Written(const std::string& name) const {
    const std::vector<Parameter>& parameters = net_->layout().parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (parameters[i].name != name) continue;
      const Slice slice = {
          .index = i, .begin = 0, .end = parameters[i].elements};
      const std::vector<at::Tensor> values = {state_->params[i].clone()};
      return WithParams(*state_, {&slice, 1}, values);
    }
    ADD_FAILURE() << "no " << name;
    return state_;
  }

  inline static const ForwardOptions kOut = {};
  inline static const ForwardOptions kAll = {
      .outputs = {"layers.4", "out", "features"}};
  inline static const ForwardOptions kFeatures = {.outputs = {"features"}};

  std::shared_ptr<const Architecture> net_ = Net(3);
  StatePtr state_ = Seeded(*net_);
  std::shared_ptr<const Architecture> fork_net_ = Net(5);
  StatePtr fork_ =
      ForkOf(*state_, fork_net_->layout(), *Seeded(*fork_net_, 7)).value();
  at::Tensor a_ = Rand(1, {2, 3, 8, 8});
  at::Tensor b_ = Rand(2, {1, 3, 8, 8});
  at::Tensor c_ = Rand(3, {3, 3, 8, 8});
};

TEST_F(TogetherTest, GivesEachItsOwnRows) {
  ExpectAsAlone({Part(a_), Part(b_), Part(c_)});
}

TEST_F(TogetherTest, GivesEachWhatItAskedFor) {
  ExpectAsAlone({Part(a_, kAll), Part(b_, kFeatures), Part(c_)});
}

TEST_F(TogetherTest, RunsEachHeadOverItsOwnRows) {
  ExpectAsAlone({Part(a_), OfFork(b_), Part(c_, kFeatures), OfFork(a_, kAll)});
}

TEST_F(TogetherTest, ForksMayRunTogether) {
  EXPECT_TRUE(CanRunTogether(Part(a_), OfFork(b_)));
  EXPECT_EQ(TogetherKey(Part(a_)), TogetherKey(OfFork(b_)));
}

TEST_F(TogetherTest, WriteOfTheHeadLeavesTheTrunkShared) {
  const StatePtr written = Written("classifier.bias");
  ForwardPart part = Part(a_);
  part.state = written.get();
  EXPECT_TRUE(CanRunTogether(Part(b_), part));
  EXPECT_EQ(TogetherKey(Part(b_)), TogetherKey(part));
}

TEST_F(TogetherTest, EqualTrunksOfDifferentTensorsStayApart) {
  const StatePtr written = Written("layer2.0.conv1.weight");
  ForwardPart part = Part(a_);
  part.state = written.get();
  EXPECT_FALSE(CanRunTogether(Part(b_), part));
  EXPECT_NE(TogetherKey(Part(b_)), TogetherKey(part));
}

TEST_F(TogetherTest, OtherBuffersStayApart) {
  const StatePtr moved = WithBuffers(*state_, Copies(state_->buffers));
  ForwardPart part = Part(a_);
  part.state = moved.get();
  EXPECT_FALSE(CanRunTogether(Part(b_), part));
}

TEST_F(TogetherTest, OtherSampleShapesStayApart) {
  EXPECT_FALSE(CanRunTogether(Part(a_), Part(Rand(1, {2, 3, 16, 16}))));
  EXPECT_NE(TogetherKey(Part(a_)), TogetherKey(Part(Rand(1, {2, 3, 16, 16}))));
}

TEST_F(TogetherTest, StagesBeforeTheirReluStayApart) {
  const ForwardOptions before = {.prerelu = true};
  EXPECT_FALSE(CanRunTogether(Part(a_), Part(a_, before)));
}

TEST_F(TogetherTest, EachPartHasTheOperationsThatItHasAlone) {
  const std::vector<ForwardPart> parts = {
      Part(Images(1)), Part(Images(2).narrow(0, 0, 1), kFeatures),
      OfFork(Images(3)), Part(Images(4).narrow(0, 0, 3))};
  const std::vector<ForwardOutput> together = ForwardTogether(parts);
  for (size_t i = 0; i < parts.size(); ++i) {
    const ForwardPart& part = parts[i];
    const Flops alone =
        Forward(*part.architecture, *part.state, part.inputs, *part.options)
            .flops;
    EXPECT_GT(alone.forward, 0);
    EXPECT_EQ(together[i].flops, alone) << i;
  }
}

}  // namespace
}  // namespace backboned
