// Compares tapes that gave up their graph with tapes that kept it, bit by bit.
#include "server/compute/forward_replay.h"

#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/task.h"
#include "server/compute/backward.h"
#include "server/compute/forward.h"
#include "server/server.h"
#include "tests/backbones/tensors.h"
#include "tests/server/devices.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::Ge;

// A server that keeps `max_tape_bytes`, and an instance of it that begins as
// every other of the same architecture.
class Trainee {
 public:
  Trainee(std::shared_ptr<const Architecture> architecture,
          int64_t max_tape_bytes)
      : server_(Devices(), /*threads=*/1,
                {.limits = {.max_tape_bytes = max_tape_bytes, .quotas = {}}}) {
    StatePtr state = Seeded(*architecture);
    instance_ = std::make_shared<Instance>(
        Instance::Identity{.name = "net", .owner = "local"},
        std::move(architecture), *server_.workers().front(), std::move(state));
    EXPECT_THAT(server_.registry().Add(instance_), IsOk());
  }

  // Keeps a tape of `inputs` and returns its id.
  std::string Forward(Inputs inputs, ForwardOptions options,
                      std::vector<at::Tensor> buffers = {}) {
    options.record = true;
    ForwardWork work = {.instance = instance_,
                        .inputs = std::move(inputs),
                        .options = std::move(options),
                        .buffers = std::move(buffers)};
    work.slot = server_.tapes()
                    .Reserve({.principal = "local"}, server_.clock().Now())
                    .value();
    work.account = std::make_shared<MemoryAccount>("max-tape-bytes");
    auto done = BlockOn(RunForward(server_.tapes(), server_.accounts(),
                                   {.principal = "local"}, std::move(work)));
    EXPECT_THAT(done, IsOk());
    most_bytes_ = std::max(most_bytes_, done->tape_bytes);
    return done->tape_id;
  }

  // Adds the gradients of all outputs' sums to the instance's; returns the
  // input gradients.
  std::vector<at::Tensor> Backward(const std::vector<std::string>& ids,
                                   bool input_grad = false,
                                   bool retain = false) {
    BackwardWork work = {.instance = instance_,
                         .lease = server_.tapes()
                                      .Lease(ids, instance_->uid(), "local",
                                             server_.clock().Now())
                                      .value(),
                         .retain = retain,
                         .accumulate = true,
                         .input_grad = input_grad};
    for (const auto& tape : work.lease.tapes()) {
      for (const at::Tensor& output : tape->outputs) {
        work.output_grads.emplace_back().push_back(
            at::ones(output.sizes(), at::kFloat));
      }
    }
    auto done = BlockOn(RunBackward({.principal = "local"}, std::move(work)));
    EXPECT_THAT(done, IsOk());
    std::vector<at::Tensor> grads;
    for (const Inputs& inputs : done->input_grads) {
      for (const Input& input : inputs.all) grads.push_back(input.tensor);
    }
    return grads;
  }

  // Sets the parameters to those of another seed.
  void SetParams(uint64_t seed) {
    const StatePtr drawn = Seeded(instance_->architecture(), seed);
    EXPECT_THAT(BlockOn(instance_->Commit(
                    {.lane = instance_->lane()}, {},
                    [&drawn](const State& state) {
                      State next = state;
                      next.params = drawn->params;
                      ++next.params_version;
                      return std::make_shared<const State>(std::move(next));
                    })),
                IsOk());
  }

  // Returns the present gradients, buffers and generator.
  std::vector<at::Tensor> Tensors() const {
    std::vector<at::Tensor> all;
    ForEachTensor(*instance_->state(),
                  [&all](const at::Tensor& tensor) { all.push_back(tensor); });
    return all;
  }
  std::string RngState() const { return instance_->state()->rng_state; }

  Instance& instance() { return *instance_; }
  TapeStore& tapes() { return server_.tapes(); }
  int64_t demoted() { return instance_->counters().demoted_tapes; }
  int64_t replayed() { return instance_->counters().replayed_forwards; }
  int64_t most_bytes() const { return most_bytes_; }

 private:
  Server server_;
  std::shared_ptr<Instance> instance_;
  int64_t most_bytes_ = 0;
};

// Returns a small network of this architecture; the wide one draws.
std::shared_ptr<const Architecture> Small(const std::string& name) {
  if (name == "resnet18") {
    return Build(name,
                 {{"num_classes", int64_t{3}}, {"num_filters", int64_t{8}}});
  }
  return Build(name, {{"num_classes", int64_t{3}},
                      {"depth", int64_t{10}},
                      {"widen_factor", int64_t{2}},
                      {"dropout", 0.5}});
}

class ReplayTest : public ::testing::TestWithParam<std::string> {
 protected:
  // Has room for everything; measures the bytes of a tape.
  Trainee roomy_{Small(GetParam()), int64_t{1} << 30};

  // Returns a host with room for one tape, and for the rest of demoted ones.
  std::unique_ptr<Trainee> Tight() {
    return std::make_unique<Trainee>(Small(GetParam()),
                                     roomy_.most_bytes() * 5 / 4);
  }

  static void ExpectEqual(const Trainee& actual, const Trainee& expected) {
    EXPECT_TRUE(BitEqual(actual.Tensors(), expected.Tensors()));
    EXPECT_EQ(actual.RngState(), expected.RngState());
  }
};

INSTANTIATE_TEST_SUITE_P(Networks, ReplayTest,
                         ::testing::Values("resnet18", "wide-resnet"));

TEST_P(ReplayTest, ATrainingWithAThirdOfTheBytesEndsWithTheSameNumbers) {
  const auto train = [](Trainee& net) {
    for (uint64_t step = 0; step < 3; ++step) {
      std::vector<std::string> ids;
      for (uint64_t i = 0; i < 4; ++i) {
        ids.push_back(net.Forward(Images(4 * step + i), {.training = true}));
      }
      net.Backward(ids);
      net.SetParams(step + 1);
    }
  };
  train(roomy_);
  EXPECT_EQ(roomy_.demoted(), 0);
  const auto tight = Tight();
  train(*tight);
  EXPECT_THAT(tight->demoted(), Ge(9));
  EXPECT_EQ(tight->replayed(), tight->demoted());
  EXPECT_EQ(tight->tapes().TotalFigures().bytes, 0);
  ExpectEqual(*tight, roomy_);
}

TEST_P(ReplayTest, ATapeOverTheBytesByItselfIsRunAgain) {
  const auto step = [](Trainee& net) {
    const std::string id = net.Forward(Images(1), {.training = true});
    net.SetParams(5);
    net.Backward({id});
  };
  step(roomy_);
  Trainee tight(Small(GetParam()), roomy_.most_bytes() / 4);
  step(tight);
  EXPECT_EQ(tight.demoted(), 1);
  EXPECT_EQ(tight.replayed(), 1);
  ExpectEqual(tight, roomy_);
}

TEST_P(ReplayTest, EachForwardIsRunAgainAsItWas) {
  const auto step = [](Trainee& net) {
    const Architecture& architecture = net.instance().architecture();
    std::vector<bool> mask(architecture.layout().parameters().size(), true);
    mask[0] = mask[2] = false;
    const std::vector<at::Tensor> at_first = net.instance().state()->buffers;
    const std::vector<BatchNormMode> cumulative =
        ResolveBatchNorm(
            std::vector<BatchNormOverride>{
                {.globs = {"layer1*"}, .mode = {.cumulative = true}},
                {.globs = {"layer2*"}, .mode = {.training = false}}},
            architecture.layout())
            .value();
    std::vector<std::string> ids;
    ids.push_back(net.Forward({Images(1), true}, {}));
    ids.push_back(net.Forward({Images(2), true}, {.training = true}));
    net.SetParams(7);
    ids.push_back(net.Forward(
        {Images(3), true},
        {.outputs = {"features"}, .training = true, .grad_mask = mask}));
    ids.push_back(net.Forward({Images(4), true},
                              {.training = true,
                               .rng_state = GeneratorState(SeededGenerator(11)),
                               .batch_norm = cumulative}));
    ids.push_back(net.Forward({Images(5), true}, {.training = true}, at_first));
    net.SetParams(8);
    ids.push_back(net.Forward({Images(6), true}, {}));
    return net.Backward({ids[3], ids[0], ids[1], ids[5], ids[4], ids[2]},
                        /*input_grad=*/true);
  };
  const std::vector<at::Tensor> expected = step(roomy_);
  const auto tight = Tight();
  EXPECT_TRUE(BitEqual(step(*tight), expected));
  EXPECT_THAT(tight->replayed(), Ge(4));
  ExpectEqual(*tight, roomy_);
}

TEST_P(ReplayTest, RetainedTapesAreRunAgainEachTime) {
  const auto step = [](Trainee& net) {
    std::vector<std::string> ids = {net.Forward(Images(1), {.training = true}),
                                    net.Forward(Images(2), {.training = true})};
    net.Backward(ids, /*input_grad=*/false, /*retain=*/true);
    net.Backward(ids, /*input_grad=*/false, /*retain=*/true);
    net.Backward(ids);
  };
  step(roomy_);
  const auto tight = Tight();
  step(*tight);
  EXPECT_EQ(tight->demoted(), 1);
  EXPECT_EQ(tight->replayed(), 3);
  ExpectEqual(*tight, roomy_);
}

TEST(ForwardReplayTest, CountsTheInputAndWhatOnlyItHolds) {
  Trainee net(Small("resnet18"), /*max_tape_bytes=*/1 << 20);
  const StatePtr state = net.instance().state();
  const auto instance = std::make_shared<Instance>(
      Instance::Identity{.name = "net", .owner = "local"}, Small("resnet18"),
      net.instance().worker(), state);
  State sole = *state;
  const ForwardReplay replay(instance, *state, Images(1), {.record = true});
  const int64_t input_bytes = 4 * 3 * 16 * 16 * 4;
  EXPECT_EQ(replay.bytes(), input_bytes);

  sole.params[0] = sole.params[0].clone();
  const ForwardReplay other(instance, sole, Images(1), {.record = true});
  const auto bytes = static_cast<int64_t>(sole.params[0].nbytes());
  sole.params[0].reset();
  EXPECT_EQ(other.bytes(), input_bytes + bytes);
}

}  // namespace
}  // namespace backboned
