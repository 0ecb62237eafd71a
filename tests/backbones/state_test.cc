#include "backbones/state.h"

#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "backbones/initial_draw.h"
#include "base/errors.h"
#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;
using ::testing::Optional;

// Returns a layout with parameters `a` [2, 3] and `b` [4], buffer `count`.
Layout SmallLayout() {
  Layout layout;
  layout.AddInitStep(layout.AddParameter("a", {2, 3}), UniformDraw{0, 1});
  layout.AddInitStep(layout.AddParameter("b", {4}), ConstantFill{7});
  layout.AddBuffer("count", {}, at::kLong, 5);
  return layout;
}

StatePtr SmallState() {
  return InitialState(SmallLayout(), SeededGenerator(0), at::kCPU);
}

std::vector<Slice> Range(int64_t begin, int64_t end) {
  return SelectParameters({.range = {{begin, end}}}, SmallLayout()).value();
}

std::span<const std::byte> Bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST(InitialStateTest, FollowsTheStepsInTheirOrder) {
  Layout layout;
  const size_t a = layout.AddParameter("a", {3});
  const size_t b = layout.AddParameter("b", {3});
  layout.AddInitStep(b, UniformDraw{0, 1});
  layout.AddInitStep(a, UniformDraw{0, 1});
  layout.AddInitStep(b, UniformDraw{0, 1});
  const auto state = InitialState(layout, SeededGenerator(4), at::kCPU);
  const at::Tensor draws = Rand(4, {9});
  EXPECT_TRUE(BitEqual(state->params[a], draws.narrow(0, 3, 3)));
  EXPECT_TRUE(BitEqual(state->params[b], draws.narrow(0, 6, 3)));
}

TEST(InitialStateTest, StartsAtVersionOneWithoutGradients) {
  const auto state = SmallState();
  EXPECT_EQ(state->params_version, 1);
  EXPECT_EQ(state->buffers_version, 1);
  ASSERT_EQ(state->grads.size(), 2);
  EXPECT_FALSE(state->grads[0].defined());
  EXPECT_EQ(state->buffers[0].item<int64_t>(), 5);
  EXPECT_EQ(StateBytes(*state), 10 * 4 + 8);
}

TEST(InitialStateTest, DrawsInFloat32AndConverts) {
  Layout layout = SmallLayout();
  layout.AddBuffer("mean", {2}, at::kFloat, 0.1);
  const auto drawn = InitialState(layout, SeededGenerator(4), at::kCPU);
  for (const at::ScalarType dtype : {at::kDouble, at::kHalf, at::kBFloat16}) {
    const auto state =
        InitialState(layout, SeededGenerator(4), at::kCPU, dtype);
    EXPECT_EQ(DtypeOf(*state), dtype);
    EXPECT_TRUE(BitEqual(state->params[0], drawn->params[0].to(dtype)));
    EXPECT_EQ(state->buffers[0].scalar_type(), at::kLong);
    EXPECT_TRUE(BitEqual(state->buffers[1], at::full({2}, 0.1, dtype)));
    EXPECT_EQ(state->rng_state, drawn->rng_state);
  }
}

TEST(InitialStateTest, DrawsSharedTensorsForTheGeneratorOnly) {
  Layout layout = SmallLayout();
  layout.BeginInherited(0, "old.0", "a");
  layout.AddInitStep(layout.AddParameter("old.0.weight", {3}),
                     UniformDraw{0, 1});
  const auto state = InitialState(layout, SeededGenerator(4), at::kCPU);
  EXPECT_EQ(state->params.size(), 2);
  const at::Generator generator = SeededGenerator(4);
  at::rand({9}, generator);
  EXPECT_EQ(state->rng_state, GeneratorState(generator));
}

TEST(WithColumnsTest, SharesTheColumnsTensors) {
  Layout earlier;
  earlier.AddInitStep(earlier.AddParameter("fc.weight", {3}), ConstantFill{2});
  earlier.AddBuffer("fc.mean", {3}, at::kFloat, 4);
  const auto first = InitialState(earlier, SeededGenerator(0), at::kCPU);
  Layout layout = SmallLayout();
  layout.BeginInherited(0, "old.0", "fc");
  const size_t shared = layout.AddParameter("old.0.weight", {3});
  const size_t mean = layout.AddBuffer("old.0.mean", {3}, at::kFloat, 0);
  EXPECT_EQ(shared, 2);
  EXPECT_EQ(layout.parameter_elements(), 10);

  const std::vector<Column> columns = {{.layout = &earlier, .state = first}};
  const auto state = WithColumns(
      *InitialState(layout, SeededGenerator(0), at::kCPU), layout, columns);
  ASSERT_EQ(state->shared.size(), 1);
  EXPECT_TRUE(state->shared[0].is_same(first->params[0]));
  EXPECT_TRUE(state->buffers[mean].is_same(first->buffers[0]));
  EXPECT_EQ(state->buffers[0].item<int64_t>(), 5);
}

TEST(WithParamsTest, ConvertsToTheStatesDtype) {
  const auto old =
      InitialState(SmallLayout(), SeededGenerator(0), at::kCPU, at::kBFloat16);
  const auto cut = Range(4, 9);
  const auto fresh = FreshTensors(old->params, cut, at::kDouble);
  for (const at::Tensor& value : fresh) {
    EXPECT_EQ(value.scalar_type(), at::kDouble);
    value.fill_(1.01);
  }
  const auto state = WithParams(*old, cut, fresh);
  const at::Tensor expected = at::full({2}, 1.01, at::kBFloat16);
  EXPECT_TRUE(BitEqual(state->params[0].view({-1}).narrow(0, 4, 2), expected));
  EXPECT_EQ(DtypeOf(*state), at::kBFloat16);

  const auto all = Range(0, 10);
  const auto wide = FreshTensors(old->params, all, at::kFloat);
  for (const at::Tensor& value : wide) value.fill_(1.01);
  EXPECT_TRUE(BitEqual(WithParams(*old, all, wide)->params[1],
                       at::full({4}, 1.01, at::kBFloat16)));
}

TEST(GeneratorTest, TravelsAsBytes) {
  const at::Generator generator = SeededGenerator(3);
  at::rand({5}, generator);
  const std::string bytes = GeneratorState(generator);
  EXPECT_EQ(bytes.size(), kGeneratorStateBytes);
  const auto copy = GeneratorFromState(Bytes(bytes));
  ASSERT_THAT(copy, IsOk());
  EXPECT_TRUE(BitEqual(at::rand({5}, *copy), at::rand({5}, generator)));
}

TEST(GeneratorTest, RejectsOtherSizes) {
  const auto generator = GeneratorFromState(Bytes(std::string(16, 'a')));
  EXPECT_THAT(generator, StatusIs(absl::StatusCode::kInvalidArgument,
                                  "generator state has 16 bytes, expected "
                                  "5056"));
  EXPECT_THAT(ReasonOf(generator.status()), Optional(Reason::kInvalidOption));
}

TEST(GeneratorTest, RejectsBytesThatAreNoState) {
  EXPECT_THAT(
      GeneratorFromState(Bytes(std::string(kGeneratorStateBytes, '\xff'))),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("not one of a CPU generator")));
}

TEST(WithParamsTest, TakesWholeTensorsWithoutACopyAndSharesTheRest) {
  const auto old = SmallState();
  const auto slices = Range(6, 10);
  const auto fresh = FreshTensors(old->params, slices);
  fresh[0].fill_(1);
  const auto next = WithParams(*old, slices, fresh);
  EXPECT_EQ(next->params[1].const_data_ptr(), fresh[0].const_data_ptr());
  EXPECT_EQ(next->params[0].const_data_ptr(), old->params[0].const_data_ptr());
  EXPECT_EQ(next->params_version, 2);
  EXPECT_EQ(next->buffers_version, 1);
  EXPECT_EQ(old->params[1][0].item<float>(), 7);
}

TEST(WithParamsTest, MergesTensorsThatARangeCuts) {
  const auto old = SmallState();
  const std::vector<at::Tensor> before = Copies(old->params);
  const auto slices = Range(4, 7);
  const auto fresh = FreshTensors(old->params, slices);
  ASSERT_EQ(fresh[0].sizes(), std::vector<int64_t>{2});
  ASSERT_EQ(fresh[1].sizes(), std::vector<int64_t>{1});
  fresh[0].fill_(-1);
  fresh[1].fill_(-2);
  const auto next = WithParams(*old, slices, fresh);
  EXPECT_EQ(next->params[0].sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(BitEqual(next->params[0][0], before[0][0]));
  EXPECT_EQ(next->params[0][1][0].item<float>(), before[0][1][0].item<float>());
  EXPECT_EQ(next->params[0][1][1].item<float>(), -1);
  EXPECT_EQ(next->params[0][1][2].item<float>(), -1);
  EXPECT_EQ(next->params[1][0].item<float>(), -2);
  EXPECT_EQ(next->params[1][1].item<float>(), 7);
  EXPECT_TRUE(BitEqual(old->params, before));
}

TEST(WithBuffersTest, StartsANewVersionOfTheBuffers) {
  const auto old = SmallState();
  const std::vector<Slice> slices = {{.index = 0, .begin = 0, .end = 1}};
  const auto fresh = FreshTensors(old->buffers, slices);
  EXPECT_EQ(fresh[0].scalar_type(), at::kLong);
  EXPECT_EQ(fresh[0].dim(), 0);
  fresh[0].fill_(9);
  const auto next = WithBuffers(*old, slices, fresh);
  EXPECT_EQ(next->buffers[0].item<int64_t>(), 9);
  EXPECT_EQ(next->buffers_version, 2);
  EXPECT_EQ(next->params_version, 1);
}

TEST(WithGradsTest, SetsAndTakesAway) {
  const auto old = SmallState();
  const auto all = Range(0, 10);
  const auto fresh = FreshTensors(old->params, all);
  const auto with = WithGrads(*old, all, fresh);
  EXPECT_TRUE(with->grads[0].defined());
  EXPECT_TRUE(with->grads[1].defined());
  const std::vector<at::Tensor> none(1);
  const auto without = WithGrads(*with, Range(0, 6), none);
  EXPECT_FALSE(without->grads[0].defined());
  EXPECT_TRUE(without->grads[1].defined());
  EXPECT_EQ(without->params_version, 1);
}

TEST(WithAddedGradsTest, AddsOntoWhatIsThereInNewTensors) {
  const auto old = SmallState();
  const std::vector<at::Tensor> first = {at::full({2, 3}, 1.0F), at::Tensor()};
  const std::vector<at::Tensor> second = {at::full({2, 3}, 2.0F),
                                          at::full({4}, 5.0F)};
  const auto once = WithAddedGrads(*old, first);
  EXPECT_FALSE(once->grads[1].defined());
  const auto twice = WithAddedGrads(*once, second);
  EXPECT_EQ(twice->grads[0][0][0].item<float>(), 3);
  EXPECT_EQ(twice->grads[1][0].item<float>(), 5);
  EXPECT_EQ(once->grads[0][0][0].item<float>(), 1);
  const std::vector<at::Tensor> nothing(2);
  EXPECT_TRUE(BitEqual(WithAddedGrads(*twice, nothing)->grads, twice->grads));
}

TEST(CloneOfTest, SharesTheTensorsAndBeginsAtVersionOne) {
  const auto state = WithAddedGrads(
      *WithBuffers(*SmallState(), {at::full({}, 6, at::kLong)}),
      std::vector<at::Tensor>{at::full({2, 3}, 1.0), at::Tensor()});
  const auto clone = CloneOf(*state, {});
  EXPECT_EQ(clone->buffers_version, 1U);
  EXPECT_TRUE(clone->params[0].is_same(state->params[0]));
  EXPECT_TRUE(clone->buffers[0].is_same(state->buffers[0]));
  EXPECT_EQ(clone->rng_state, state->rng_state);
  ASSERT_EQ(clone->grads.size(), 2U);
  EXPECT_FALSE(clone->grads[0].defined());
  EXPECT_TRUE(
      CloneOf(*state, {.grads = true})->grads[0].is_same(state->grads[0]));
}

TEST(ForkOfTest, TakesTheHeadOfTheFreshState) {
  const auto resnet =
      Build("resnet18", {{"num_classes", 3}, {"num_filters", 2}});
  const auto other =
      Build("resnet18", {{"num_classes", 7}, {"num_filters", 2}});
  const auto state = Seeded(*resnet, 0);
  const auto fresh = Seeded(*other, 1);
  const auto fork = ForkOf(*state, other->layout(), *fresh);
  ASSERT_THAT(fork, IsOk());
  const size_t count = state->params.size();
  for (size_t i = 0; i < count; ++i) {
    const State& origin = i < count - 2 ? *state : *fresh;
    EXPECT_TRUE((*fork)->params[i].is_same(origin.params[i])) << i;
  }
  EXPECT_TRUE((*fork)->buffers[0].is_same(state->buffers[0]));
}

TEST(ForkOfTest, RefusesAnArchitectureWithoutAHeadOrOfAnotherTrunk) {
  const auto state = SmallState();
  EXPECT_THAT(ForkOf(*state, SmallLayout(), *state),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("has no separate head")));
  const auto narrow =
      Build("resnet18", {{"num_classes", 3}, {"num_filters", 2}});
  const auto wide = Build("resnet18", {{"num_classes", 3}, {"num_filters", 3}});
  EXPECT_THAT(ForkOf(*Seeded(*narrow), wide->layout(), *Seeded(*wide)),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(SliceTensorsTest, ViewsTheMemory) {
  const auto state = SmallState();
  const auto parts = SliceTensors(state->params, Range(2, 10));
  ASSERT_EQ(parts.size(), 2);
  EXPECT_EQ(parts[0].sizes(), std::vector<int64_t>{4});
  EXPECT_EQ(parts[0].const_data_ptr<float>(),
            state->params[0].const_data_ptr<float>() + 2);
  EXPECT_FALSE(SliceTensors(state->grads, Range(0, 1))[0].defined());
}

// The place of the current State, as in an instance.
class Published {
 public:
  StatePtr Get() const {
    const absl::MutexLock lock(&mutex_);
    return current_;
  }

  // Publishes a State with `value` in all elements.
  void Write(float value) {
    const auto fresh = FreshTensors(Get()->params, all_);
    for (const at::Tensor& tensor : fresh) {
      tensor.fill_(value);
    }
    const absl::MutexLock lock(&mutex_);
    current_ = WithParams(*current_, all_, fresh);
  }

  // Returns the number of elements of one State that differ from its first one.
  int64_t CountTorn() const {
    const StatePtr held = Get();
    const float first = held->params[0].const_data_ptr<float>()[0];
    int64_t torn = 0;
    for (const at::Tensor& part : SliceTensors(held->params, all_)) {
      const float* values = part.const_data_ptr<float>();
      torn += part.numel() - std::count(values, values + part.numel(), first);
    }
    return torn;
  }

 private:
  const std::vector<Slice> all_ = Range(0, 10);
  mutable absl::Mutex mutex_;
  StatePtr current_ ABSL_GUARDED_BY(mutex_) = SmallState();
};

TEST(StateTest, IsNeverTornUnderConcurrentReadersAndWriters) {
  constexpr int kWrites = 300;
  Published published;
  published.Write(0);
  std::atomic<bool> done = false;
  std::atomic<int64_t> torn = 0;
  std::vector<std::jthread> readers;
  std::vector<std::jthread> writers;
  for (int thread = 1; thread <= 2; ++thread) {
    readers.emplace_back([&] {
      while (!done) {
        torn += published.CountTorn();
      }
    });
    writers.emplace_back([&published, thread] {
      for (int i = 0; i < kWrites; ++i) {
        published.Write(static_cast<float>(2 * i + thread));
      }
    });
  }
  writers.clear();
  done = true;
  readers.clear();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(published.Get()->params_version, 2 * kWrites + 2);
}

}  // namespace
}  // namespace backboned
