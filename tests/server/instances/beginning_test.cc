#include "server/instances/beginning.h"

#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "backbones/optimizer.h"
#include "base/errors.h"
#include "base/task.h"
#include "server/instances/shared_memory.h"
#include "server/memory/memory_allocator.h"
#include "server/server.h"
#include "tests/backbones/tensors.h"
#include "tests/server/devices.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::SizeIs;

class BeginningTest : public ::testing::Test {
 protected:
  std::shared_ptr<Instance> Create(const std::string& name, Settings settings,
                                   int64_t num_filters = 2) {
    absl::StatusOr<Created> created = BlockOn(
        server_.CreateInstance({.name = name,
                                .owner = "local",
                                .architecture = "resnet18",
                                .arguments = {{"num_classes", int64_t{3}},
                                              {"num_filters", num_filters}},
                                .beginning = Drawn{.seed = 0},
                                .settings = std::move(settings)}));
    EXPECT_THAT(created, IsOk());
    return created->instance;
  }

  // Returns the options of a clone of `net_`.
  CreateOptions CloneTo(const std::string& name) const {
    return {
        .name = name, .owner = "local", .beginning = Cloned{.source = net_}};
  }

  CreateOptions ForkTo(const std::string& name, int64_t num_classes) const {
    CreateOptions options = CloneTo(name);
    options.beginning =
        Forked{.source = net_, .num_classes = num_classes, .seed = 5};
    return options;
  }

  // Makes a clone, which must succeed.
  std::shared_ptr<Instance> Clone(const CreateOptions& options) {
    absl::StatusOr<Created> clone = BlockOn(server_.CreateInstance(options));
    EXPECT_THAT(clone, IsOk());
    return clone->instance;
  }

  // Replaces the first parameter by a copy.
  static void WriteFirst(Instance& instance) {
    EXPECT_THAT(BlockOn(instance.Commit(
                    {.lane = instance.lane()}, {},
                    [](const State& state) {
                      State next = state;
                      next.params[0] = next.params[0].clone();
                      return std::make_shared<const State>(std::move(next));
                    })),
                IsOk());
  }

  std::vector<int64_t> Shared() {
    std::vector<StatePtr> states;
    for (const auto& instance : server_.registry().List()) {
      states.push_back(instance->state());
    }
    return SharedBytes(states);
  }

  Server server_{Devices(),
                 /*threads=*/1,
                 {.limits = {.max_instances = 60, .quotas = {}}}};
  std::shared_ptr<Instance> net_ = Create("net", {.frozen = {"conv1.*"}});
};

TEST_F(BeginningTest, IsAnotherInstanceOfTheSameTensors) {
  WriteFirst(*net_);
  const auto clone = Clone(CloneTo("twin"));
  EXPECT_NE(clone->uid(), net_->uid());
  EXPECT_EQ(clone->FullName(), "local/twin");
  EXPECT_EQ(clone->state()->params_version, 1U);
  EXPECT_EQ(&clone->architecture(), &net_->architecture());
  EXPECT_TRUE(BitEqual(clone->state()->params, net_->state()->params));
  EXPECT_EQ(server_.registry().Get("local", "twin"), clone);
}

TEST_F(BeginningTest, AWriteOfEitherLeavesTheOther) {
  const auto clone = Clone(CloneTo("twin"));
  const StatePtr before = clone->state();
  WriteFirst(*net_);
  EXPECT_EQ(clone->state(), before);
  const StatePtr present = net_->state();
  WriteFirst(*clone);
  EXPECT_EQ(net_->state(), present);
}

TEST_F(BeginningTest, UntouchedClonesHoldNoTensorBytesOfTheirOwn) {
  const auto large = Create("large", {}, /*num_filters=*/16);
  const int64_t before = CpuMemory().allocated_bytes();
  for (int i = 0; i < 50; ++i) {
    Clone({.name = "c" + std::to_string(i),
           .owner = "local",
           .beginning = Cloned{.source = large}});
  }
  EXPECT_EQ(CpuMemory().allocated_bytes(), before);
}

TEST_F(BeginningTest, SharedBytesAreThoseThatAnotherStateHolds) {
  EXPECT_THAT(Shared(), ElementsAre(0));
  const auto clone = Clone(CloneTo("twin"));
  const int64_t all = StateBytes(*net_->state());
  EXPECT_THAT(Shared(), ElementsAre(all, all));
  WriteFirst(*clone);
  const auto first = static_cast<int64_t>(clone->state()->params[0].nbytes());
  EXPECT_THAT(Shared(), ElementsAre(all - first, all - first));
  EXPECT_THAT(server_.DeleteInstance(*clone), IsOk());
  EXPECT_THAT(Shared(), ElementsAre(0));
}

TEST_F(BeginningTest, SharedBytesCountWhatOthersHoldAndNotTheirs) {
  const auto clone = Clone(CloneTo("twin"));
  const auto alone = Create("alone", {});
  const int64_t all = StateBytes(*net_->state());
  const std::vector states = {net_->state()};
  EXPECT_THAT(SharedBytes(states), ElementsAre(0));
  const std::vector others = {alone->state(), clone->state()};
  EXPECT_THAT(SharedBytes(states, others), ElementsAre(all));
  EXPECT_THAT(SharedBytes(std::vector{alone->state()}, states), ElementsAre(0));
}

TEST_F(BeginningTest, LookingForSharedBytesHoldsNoTensor) {
  const auto clone = Clone(CloneTo("twin"));
  const StatePtr state = clone->state();
  const at::Tensor& tensor = state->params[0];
  const auto held = tensor.use_count();
  size_t most = 0;
  ForEachTensor(*state, [&](const at::Tensor&) {
    most = std::max(most, tensor.use_count());
  });
  EXPECT_EQ(most, held);
}

TEST_F(BeginningTest, AnOptimizersTensorsAreShared) {
  const auto with_slots = [&] {
    State state = *net_->state();
    OptimizerState adam;
    adam.slots = {{at::ones({4}), at::ones({4})}};
    state.optimizer = std::make_shared<const OptimizerState>(std::move(adam));
    return std::make_shared<const State>(std::move(state));
  };
  const StatePtr state = with_slots();
  const StatePtr clone = CloneOf(*state, {.grads = true, .optimizer = true});
  const int64_t all = StateBytes(*state);
  EXPECT_GE(all, StateBytes(*net_->state()) + 2 * 4 * 4);
  EXPECT_THAT(SharedBytes(std::vector{state, clone}), ElementsAre(all, all));
}

TEST_F(BeginningTest, TakesTheSettingsButNotReadOnlyUnlessItIsGivenSome) {
  ASSERT_THAT(BlockOn(net_->ChangeSettings(
                  {.lane = net_->lane()}, {},
                  [](Settings& settings) { settings.read_only = true; })),
              IsOk());
  const auto clone = Clone(CloneTo("twin"));
  EXPECT_FALSE(clone->settings().read_only);
  EXPECT_THAT(clone->settings().frozen, ElementsAre("conv1.*"));
  EXPECT_FALSE(clone->trained()[0]);
  EXPECT_TRUE(clone->trained()[1]);

  CreateOptions options = CloneTo("teacher");
  options.settings = {.read_only = true};
  const auto teacher = Clone(options);
  EXPECT_TRUE(teacher->settings().read_only);
  EXPECT_THAT(teacher->trained(), Each(true));
}

TEST_F(BeginningTest, AForkHasAFreshHeadOnTheSameTrunk) {
  const auto fork = Clone(ForkTo("fork", 7));
  const StatePtr state = fork->state();
  const auto seven = Build(
      "resnet18", {{"num_classes", int64_t{7}}, {"num_filters", int64_t{2}}});
  const StatePtr drawn = Seeded(*seven, 5);
  const size_t count = state->params.size();
  EXPECT_TRUE(BitEqual(state->params[count - 2], drawn->params[count - 2]));
  EXPECT_TRUE(BitEqual(state->params[count - 1], drawn->params[count - 1]));
  for (size_t i = 0; i + 2 < count; ++i) {
    EXPECT_TRUE(state->params[i].is_same(net_->state()->params[i]));
  }
  EXPECT_EQ(fork->architecture().attributes().at("num_classes"), 7);
}

TEST_F(BeginningTest, AForkTakesTheMemoryOfItsHeadOnly) {
  const auto account = std::make_shared<MemoryAccount>("a");
  CreateOptions options = ForkTo("fork", 7);
  std::get<Forked>(options.beginning).source =
      Create("large", {}, /*num_filters=*/16);
  options.caller.account = account;
  const auto fork = Clone(options);
  const int64_t head_bytes = 7 * (16 * 8 + 1) * 4;
  EXPECT_EQ(account->peak_bytes(), head_bytes);
}

TEST_F(BeginningTest, TheUnnamedBelongToTheirSession) {
  const auto call =
      server_.sessions().Begin("s", "local", server_.clock().Now());
  ASSERT_THAT(call, IsOk());
  const auto clone = Clone(
      {.owner = "local", .session = "s", .beginning = Cloned{.source = net_}});
  EXPECT_TRUE(clone->identity().ephemeral);
  EXPECT_THAT(clone->identity().name, MatchesRegex("net-[0-9a-f]{8}"));
}

TEST_F(BeginningTest, NothingIsLeftOfOneThatNobodyWaitsFor) {
  const size_t before = server_.registry().List().size();
  const auto gone = [] { return absl::CancelledError("gone"); };
  EXPECT_THAT(BlockOn(server_.CreateInstance(
                  {.beginning = Cloned{.source = net_}, .check_wanted = gone})),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(
      BlockOn(server_.CreateInstance(
          {.owner = "local", .benchmark = "seq-mnist", .check_wanted = gone})),
      StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(server_.registry().List().size(), before);
}

TEST_F(BeginningTest, RefusesWhatMakesNoSenseAndLeavesNothing) {
  const auto refusal = [this](const CreateOptions& options) {
    const absl::Status status =
        BlockOn(server_.CreateInstance(options)).status();
    EXPECT_THAT(server_.registry().List(), SizeIs(1));
    return status;
  };
  EXPECT_THAT(refusal(ForkTo("fork", 0)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("num_classes is 0")));
  CreateOptions options = CloneTo("twin");
  options.settings = {.frozen = {"convolution"}};
  EXPECT_THAT(refusal(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr("\"convolution\"")));
  for (CreateOptions stale : {CloneTo("twin"), ForkTo("fork", 7)}) {
    std::visit(
        [](auto& beginning) {
          if constexpr (requires { beginning.condition; }) {
            beginning.condition.params = 3;
          }
        },
        stale.beginning);
    EXPECT_THAT(refusal(stale),
                StatusIs(absl::StatusCode::kAborted,
                         HasSubstr("has params 3, the instance has 1;")));
  }
  EXPECT_THAT(refusal(CloneTo("No")),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(refusal(CloneTo("net")),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       "instance \"net\" exists already; choose another name"));
}

}  // namespace
}  // namespace backboned
