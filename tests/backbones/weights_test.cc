#include "backbones/weights.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "backbones/initial_draw.h"
#include "base/errors.h"
#include "tests/backbones/safetensors_files.h"
#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// Returns a layout with the parameters `a` [2, 3], with the aliases `x.a` and
// `y.a`, and `b` [4], and the buffers `bn.mean` [2] and
// `bn.num_batches_tracked`.
Layout AliasedLayout() {
  Layout layout;
  const size_t a = layout.AddParameter("a", {2, 3});
  layout.AddAlias(a, "x.a");
  layout.AddAlias(a, "y.a");
  layout.AddInitStep(a, UniformDraw{0, 1});
  layout.AddInitStep(layout.AddParameter("b", {4}), ConstantFill{7});
  layout.AddBuffer("bn.mean", {2}, at::kFloat, 0);
  layout.AddBuffer("bn.num_batches_tracked", {}, at::kLong, 5);
  return layout;
}

StatePtr AliasedState() {
  return InitialState(AliasedLayout(), SeededGenerator(0), at::kCPU);
}

const NamedTensors& Full() {
  static const NamedTensors tensors = {
      {"a", at::arange(6, at::kFloat).view({2, 3})},
      {"b", at::full({4}, 0.5, at::kFloat)},
      {"bn.mean", at::full({2}, 3, at::kFloat)},
      {"bn.num_batches_tracked", at::full({}, 9, at::kLong)}};
  return tensors;
}

// Computes `state` with the tensors that `plan` takes from `file`.
absl::StatusOr<StatePtr> LoadWeights(const State& state, const LoadPlan& plan,
                                     SafetensorsFile& file) {
  State loaded = state;
  for (size_t i = 0; i < plan.targets.size(); ++i) {
    absl::Status status = LoadNext(i, plan, file, loaded);
    if (!status.ok()) return status;
  }
  return std::make_shared<const State>(std::move(loaded));
}

struct Outcome {
  StatePtr state;
  LoadPlan plan;
};

absl::StatusOr<Outcome> Load(const NamedTensors& tensors, LoadBy by,
                             bool partial) {
  absl::StatusOr<SafetensorsFile> file =
      SafetensorsFile::Read(OpenBytes(SafetensorsOf(tensors)), nullptr);
  EXPECT_THAT(file, IsOk());
  absl::StatusOr<LoadPlan> plan = PlanLoad(AliasedLayout(), file->entries(),
                                           {.by = by, .partial = partial});
  if (!plan.ok()) return plan.status();
  absl::StatusOr<StatePtr> state = LoadWeights(*AliasedState(), *plan, *file);
  if (!state.ok()) return state.status();
  return Outcome{.state = *state, .plan = *plan};
}

absl::StatusOr<Outcome> LoadByName(const NamedTensors& tensors) {
  return Load(tensors, LoadBy::kName, /*partial=*/false);
}

TEST(LoadWeightsTest, LoadsParametersAndBuffersByName) {
  const NamedTensors reversed = {Full().rbegin(), Full().rend()};
  const auto loaded = LoadByName(reversed);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE(BitEqual(loaded->state->params[0], Full()[0].second));
  EXPECT_TRUE(BitEqual(loaded->state->params[1], Full()[1].second));
  EXPECT_TRUE(BitEqual(loaded->state->buffers[0], Full()[2].second));
  EXPECT_EQ(loaded->state->buffers[1].item<int64_t>(), 9);
  EXPECT_EQ(loaded->state->params_version, 1);
  EXPECT_EQ(loaded->state->buffers_version, 1);
  EXPECT_EQ(loaded->state->rng_state, AliasedState()->rng_state);
}

TEST(LoadWeightsTest, TakesTheLastAliasAsPyTorchDoes) {
  NamedTensors tensors = Full();
  const at::Tensor last = at::full({2, 3}, 8, at::kFloat);
  tensors.insert(tensors.begin(), {"y.a", last});
  tensors.emplace_back("x.a", at::full({2, 3}, 6, at::kFloat));
  const auto loaded = LoadByName(tensors);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE(BitEqual(loaded->state->params[0], last));
  EXPECT_THAT(loaded->plan.unexpected, IsEmpty());

  tensors.back().second = at::zeros({6}, at::kFloat);
  EXPECT_THAT(LoadByName(tensors),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"x.a\" is [6], expected [2, 3]")));
}

TEST(LoadWeightsTest, NeedsNoNumBatchesTracked) {
  NamedTensors tensors = Full();
  tensors.pop_back();
  const auto loaded = LoadByName(tensors);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->state->buffers[1].item<int64_t>(), 5);
  EXPECT_THAT(loaded->plan.missing, IsEmpty());
}

TEST(LoadWeightsTest, ConvertsOtherFloats) {
  const at::Tensor wide = at::rand({2, 3}, at::kDouble);
  for (at::ScalarType type : {at::kDouble, at::kHalf, at::kBFloat16}) {
    NamedTensors tensors = Full();
    tensors[0].second = wide.to(type);
    const auto loaded = LoadByName(tensors);
    ASSERT_THAT(loaded, IsOk());
    EXPECT_EQ(loaded->state->params[0].scalar_type(), at::kFloat);
    EXPECT_TRUE(
        BitEqual(loaded->state->params[0], wide.to(type).to(at::kFloat)));
  }
}

TEST(LoadWeightsTest, ConvertsMoreThanOnePiece) {
  Layout layout;
  layout.AddInitStep(layout.AddParameter("a", {1'000'001}), ConstantFill{0});
  const at::Tensor wide = at::rand({1'000'001}, at::kDouble);
  absl::StatusOr<SafetensorsFile> file =
      SafetensorsFile::Read(OpenBytes(SafetensorsOf({{"a", wide}})), nullptr);
  ASSERT_THAT(file, IsOk());
  const auto plan = PlanLoad(layout, file->entries(), {});
  ASSERT_THAT(plan, IsOk());
  const StatePtr drawn = InitialState(layout, SeededGenerator(0), at::kCPU);
  const auto loaded = LoadWeights(*drawn, *plan, *file);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE(BitEqual((*loaded)->params[0], wide.to(at::kFloat)));
  EXPECT_EQ(drawn->params[0][0].item<float>(), 0);
}

TEST(LoadWeightsTest, ConvertsNoIntegers) {
  NamedTensors tensors = Full();
  tensors[1].second = at::zeros({4}, at::kLong);
  tensors[3].second = at::zeros({}, at::kFloat);
  const absl::Status status = LoadByName(tensors).status();
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("2 keys do not fit"),
                             HasSubstr("\"b\" is Long, expected Float"),
                             HasSubstr("\"bn.num_batches_tracked\" is Float, "
                                       "expected Long"))));
  EXPECT_EQ(ReasonOf(status), Reason::kDtypeMismatch);
}

TEST(LoadWeightsTest, ListsEveryKeyThatDoesNotFit) {
  const NamedTensors tensors = {{"a", at::zeros({3, 2}, at::kFloat)},
                                {"bn.mean", at::zeros({2}, at::kFloat)},
                                {"c", at::zeros({1}, at::kFloat)}};
  const absl::Status status = LoadByName(tensors).status();
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("3 keys do not fit"),
                             HasSubstr("\"a\" is [3, 2], expected [2, 3]"),
                             HasSubstr("\"b\" is missing"),
                             HasSubstr("\"c\" is unexpected"))));
  EXPECT_EQ(ReasonOf(status), Reason::kShapeMismatch);
}

TEST(LoadWeightsTest, ListsTheFirstTenAndTheCount) {
  NamedTensors tensors = Full();
  for (int i = 10; i < 30; ++i) {
    tensors.emplace_back(absl::StrCat("extra", i), at::zeros({1}, at::kFloat));
  }
  const absl::Status status = LoadByName(tensors).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                               AllOf(HasSubstr("20 keys do not fit"),
                                     HasSubstr("extra10"), HasSubstr("extra19"),
                                     Not(HasSubstr("extra20")))));
  EXPECT_EQ(ReasonOf(status), Reason::kInvalidOption);
}

TEST(LoadWeightsTest, ReportsWhatAPartialLoadLeaves) {
  const NamedTensors trunk = {{"c", at::zeros({1}, at::kFloat)}, Full()[1]};
  const auto loaded = Load(trunk, LoadBy::kName, /*partial=*/true);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_THAT(loaded->plan.missing, ElementsAre("a", "bn.mean"));
  EXPECT_THAT(loaded->plan.unexpected, ElementsAre("c"));
  EXPECT_TRUE(BitEqual(loaded->state->params[0], AliasedState()->params[0]));
  EXPECT_TRUE(BitEqual(loaded->state->params[1], Full()[1].second));

  EXPECT_THAT(Load({{"b", at::zeros({5}, at::kFloat)}}, LoadBy::kName,
                   /*partial=*/true),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("1 key does not fit: \"b\" is [5]")));
}

TEST(LoadWeightsTest, LoadsByOrder) {
  NamedTensors tensors = Full();
  for (auto& [name, tensor] : tensors) name = "any." + name;
  auto loaded = Load(tensors, LoadBy::kOrder, /*partial=*/false);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE(BitEqual(loaded->state->params[0], Full()[0].second));
  EXPECT_EQ(loaded->state->buffers[1].item<int64_t>(), 9);

  tensors.resize(2);  // Only the parameters.
  loaded = Load(tensors, LoadBy::kOrder, /*partial=*/false);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE(BitEqual(loaded->state->params[1], Full()[1].second));
  EXPECT_EQ(loaded->state->buffers[1].item<int64_t>(), 5);
}

TEST(LoadWeightsTest, RefusesAnotherOrder) {
  NamedTensors tensors = {Full()[1], Full()[0]};
  EXPECT_THAT(Load(tensors, LoadBy::kOrder, /*partial=*/true),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"b\" is [4], expected [2, 3]")));
  tensors = {Full()[0]};
  EXPECT_THAT(Load(tensors, LoadBy::kOrder, /*partial=*/false),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"b\" is missing")));
  tensors = Full();
  tensors.emplace_back("more", at::zeros({1}, at::kFloat));
  EXPECT_THAT(Load(tensors, LoadBy::kOrder, /*partial=*/false),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"more\" is unexpected")));
}

TEST(LoadWeightsTest, ConvertsToTheStatesDtype) {
  absl::StatusOr<SafetensorsFile> file =
      SafetensorsFile::Read(OpenBytes(SafetensorsOf(Full())), nullptr);
  ASSERT_THAT(file, IsOk());
  const auto plan = PlanLoad(AliasedLayout(), file->entries(), {});
  ASSERT_THAT(plan, IsOk());
  const StatePtr narrow = InitialState(AliasedLayout(), SeededGenerator(0),
                                       at::kCPU, at::kBFloat16);
  const auto loaded = LoadWeights(*narrow, *plan, *file);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE(
      BitEqual((*loaded)->params[0], Full()[0].second.to(at::kBFloat16)));
  EXPECT_TRUE(
      BitEqual((*loaded)->buffers[0], Full()[2].second.to(at::kBFloat16)));
  EXPECT_EQ((*loaded)->buffers[1].item<int64_t>(), 9);
}

// Returns a layout with a position embedding `pos` of a 3x3 grid.
Layout PositionLayout() {
  Layout layout;
  const size_t pos = layout.AddParameter("pos", {1, 10, 2});
  layout.AddInitStep(pos, ConstantFill{0});
  layout.MarkPositionEmbedding(pos);
  return layout;
}

absl::StatusOr<StatePtr> LoadPosition(const at::Tensor& embedding,
                                      bool resize) {
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Read(
      OpenBytes(SafetensorsOf({{"pos", embedding}})), nullptr);
  EXPECT_THAT(file, IsOk());
  const Layout layout = PositionLayout();
  const auto plan =
      PlanLoad(layout, file->entries(), {.resize_position_embedding = resize});
  if (!plan.ok()) return plan.status();
  return LoadWeights(*InitialState(layout, SeededGenerator(0), at::kCPU), *plan,
                     *file);
}

TEST(LoadWeightsTest, ResizesAPositionEmbeddingIfItMay) {
  const at::Tensor constant = at::full({1, 26, 2}, 0.5, at::kFloat);
  const auto loaded = LoadPosition(constant, /*resize=*/true);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE((*loaded)->params[0].allclose(at::full({1, 10, 2}, 0.5)));
}

TEST(LoadWeightsTest, KeepsTheClassTokensPosition) {
  const at::Tensor embedding = at::rand({1, 5, 2});
  const auto loaded = LoadPosition(embedding, /*resize=*/true);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE(BitEqual((*loaded)->params[0].narrow(1, 0, 1).contiguous(),
                       embedding.narrow(1, 0, 1).contiguous()));
}

TEST(PlanLoadTest, HintsAtResizingAPositionEmbedding) {
  const auto result =
      LoadPosition(at::zeros({1, 26, 2}, at::kFloat), /*resize=*/false);
  EXPECT_THAT(result,
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"pos\" is [1, 26, 2], expected [1, 10, 2] "
                                 "(of another image size: set "
                                 "resize_position_embedding)")));
}

TEST(PlanLoadTest, ResizesNoEmbeddingOfAnotherWidthOrWithoutAGrid) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{1, 26, 3}, {1, 25, 2}, {26, 2}, {1, 1, 2}}) {
    const auto result =
        LoadPosition(at::zeros(shape, at::kFloat), /*resize=*/true);
    EXPECT_THAT(result, StatusIs(absl::StatusCode::kInvalidArgument,
                                 AllOf(HasSubstr("expected [1, 10, 2]"),
                                       Not(HasSubstr("image size")))));
  }
}

}  // namespace
}  // namespace backboned
