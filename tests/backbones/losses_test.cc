#include "backbones/losses.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <vector>

#include "tests/backbones/tensors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using ::testing::HasSubstr;

at::Tensor Labels(const std::vector<int64_t>& labels) {
  return at::tensor(labels);
}

LossTerm CrossEntropyOf(const std::vector<int64_t>& labels) {
  return {.row_end = std::ssize(labels),
          .loss = CrossEntropy{.labels = Labels(labels)}};
}

struct Differentiated : LossValues {
  at::Tensor logits_grad;
};

// Computes a loss and its gradient.
Differentiated Differentiate(const std::vector<LossTerm>& terms,
                             const at::Tensor& logits) {
  const at::Tensor leaf = logits.detach().requires_grad_(true);
  const LossOutput output = ComputeLoss(terms, leaf);
  return {ReadLoss(output), torch::autograd::grad({output.sum}, {leaf})[0]};
}

TEST(ComputeLossTest, CrossEntropyOfEqualLogitsIsTheLogarithm) {
  const std::vector<LossTerm> terms = {CrossEntropyOf({0, 3})};
  const Differentiated output = Differentiate(terms, at::zeros({2, 4}));
  EXPECT_NEAR(output.loss, std::log(4), 1e-6);
  EXPECT_THAT(ValuesOf(output.logits_grad),
              ElementsAre(-0.375F, 0.125F, 0.125F, 0.125F,  //
                          0.125F, 0.125F, 0.125F, -0.375F));
}

TEST(ComputeLossTest, AMaskLeavesClassesOut) {
  LossTerm term = CrossEntropyOf({1});
  std::get<CrossEntropy>(term.loss).class_mask = {true, true, false, false};
  const Differentiated output =
      Differentiate(std::vector{term}, at::zeros({1, 4}));
  EXPECT_NEAR(output.loss, std::log(2), 1e-6);
  EXPECT_THAT(ValuesOf(output.logits_grad), ElementsAre(0.5F, -0.5F, 0, 0));
}

TEST(ComputeLossTest, SmoothsLabels) {
  LossTerm term = CrossEntropyOf({1});
  std::get<CrossEntropy>(term.loss).label_smoothing = 0.5;
  const Differentiated output =
      Differentiate(std::vector{term}, at::zeros({1, 2}));
  EXPECT_THAT(ValuesOf(output.logits_grad), ElementsAre(0.25F, -0.25F));
}

TEST(ComputeLossTest, LeavesIgnoredLabelsOutOfTheMean) {
  const std::vector<LossTerm> terms = {CrossEntropyOf({kIgnoredLabel, 0})};
  const Differentiated output = Differentiate(terms, at::zeros({2, 2}));
  EXPECT_THAT(ValuesOf(output.logits_grad), ElementsAre(0, 0, -0.5F, 0.5F));
}

TEST(ComputeLossTest, TakesTargetsOfEitherTypeAsTheLogits) {
  const at::Tensor logits = at::zeros({1, 2}, at::kDouble);
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    const at::Tensor target = at::full({1, 2}, 0.1, dtype);
    const LossTerm term = {.row_end = 1, .loss = MeanSquaredError{target}};
    ASSERT_TRUE(CheckTerms(std::vector{term}, 1).ok());
    const Differentiated output = Differentiate(std::vector{term}, logits);
    const double value = target[0][0].item<double>();
    EXPECT_EQ(output.loss, value * value);
    EXPECT_EQ(output.logits_grad.scalar_type(), at::kDouble);
  }
}

TEST(ComputeLossTest, MeanSquaredErrorIsTheMeanOverElements) {
  const LossTerm term = {.row_end = 1,
                         .loss = MeanSquaredError{at::zeros({1, 2})}};
  const Differentiated output =
      Differentiate(std::vector{term}, at::tensor({1.F, 3.F}).view({1, 2}));
  EXPECT_EQ(output.loss, 5);
  EXPECT_THAT(ValuesOf(output.logits_grad), ElementsAre(1, 3));
}

TEST(ComputeLossTest, KlDivergenceDividesByTheTemperature) {
  const at::Tensor target = at::tensor({2.F, 0.F}).view({1, 2});
  const LossTerm term = {
      .row_end = 1, .loss = KlDivergence{.target = target, .temperature = 2}};
  const Differentiated output =
      Differentiate(std::vector{term}, at::zeros({1, 2}));
  const double p = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(output.loss,
              p * std::log(2 * p) + (1 - p) * std::log(2 * (1 - p)), 1e-6);
  EXPECT_THAT(ValuesOf(output.logits_grad),
              ElementsAre(FloatNear(static_cast<float>((0.5 - p) / 2), 1e-6F),
                          FloatNear(static_cast<float>((p - 0.5) / 2), 1e-6F)));
}

TEST(ComputeLossTest, AddsWeightedTermsOfTheirRows) {
  LossTerm first = {
      .row_end = 1, .weight = 2, .loss = MeanSquaredError{at::zeros({1, 1})}};
  LossTerm second = {.row_begin = 1,
                     .row_end = 3,
                     .weight = 0.5,
                     .loss = MeanSquaredError{at::zeros({2, 1})}};
  const Differentiated output = Differentiate(
      std::vector{first, second}, at::tensor({1.F, 2.F, 4.F}).view({3, 1}));
  EXPECT_THAT(output.losses, ElementsAre(1, 10));
  EXPECT_EQ(output.loss, 2 * 1 + 0.5 * 10);
  EXPECT_THAT(ValuesOf(output.logits_grad), ElementsAre(4, 1, 2));
}

TEST(ComputeLossTest, LeavesTheLogitsAndMakesNoGraphWithoutTheirs) {
  const at::Tensor logits = Rand(1, {3, 4});
  const at::Tensor copy = logits.clone();
  const LossOutput output =
      ComputeLoss(std::vector{CrossEntropyOf({0, 1, 2})}, logits);
  EXPECT_TRUE(BitEqual(logits, copy));
  EXPECT_FALSE(output.sum.requires_grad());
}

class CheckTermsTest : public ::testing::Test {
 protected:
  // Expects that a term after a good one is refused.
  static void Expect(const LossTerm& term, const char* message) {
    EXPECT_THAT(
        CheckTerms(std::vector{CrossEntropyOf({0}), term}, 4),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  }
};

TEST_F(CheckTermsTest, NeedsATerm) {
  EXPECT_THAT(CheckTerms({}, 4), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("has no loss term")));
}

TEST_F(CheckTermsTest, RefusesRowsThatAreNotThere) {
  LossTerm term = CrossEntropyOf({0});
  term.row_begin = 3;
  term.row_end = 5;
  Expect(term, "term 1: rows [3, 5) are not within a batch of 4 rows");
  term.row_end = 3;
  Expect(term, "rows [3, 3)");
  term.row_begin = -1;
  Expect(term, "rows [-1, 3)");
}

TEST_F(CheckTermsTest, RefusesNumbersOutOfTheirRange) {
  LossTerm term = CrossEntropyOf({0});
  term.weight = kNan;
  Expect(term, "term 1: weight is nan");
  Expect({.row_end = 1,
          .loss = CrossEntropy{.labels = Labels({0}), .label_smoothing = 1.5}},
         "label_smoothing is 1.5, must be in [0, 1]");
  Expect({.row_end = 1,
          .loss = KlDivergence{.target = at::zeros({1, 2}), .temperature = -1}},
         "temperature is -1, must be finite and above 0");
  Expect({.row_end = 1,
          .loss = CrossEntropy{.labels = Labels({0}),
                               .class_mask = {true},
                               .label_smoothing = 0.5}},
         "label_smoothing cannot be used with class_mask");
}

TEST_F(CheckTermsTest, RefusesTensorsThatDoNotFitTheRows) {
  Expect({.row_end = 2, .loss = CrossEntropy{.labels = Labels({0})}},
         "the labels have shape [1], expected [2]");
  Expect({.row_end = 2, .loss = MeanSquaredError{at::zeros({3, 2})}},
         "the target has shape [3, 2], expected [2, K]");
  Expect({.row_end = 2, .loss = KlDivergence{.target = at::zeros({2})}},
         "the target has shape [2], expected [2, K]");
  Expect({.row_end = 1, .loss = CrossEntropy{.labels = at::zeros({1})}},
         "the labels must be int64");
  Expect({.row_end = 1, .loss = MeanSquaredError{at::zeros({1, 2}, at::kLong)}},
         "the target must be float32 or float64");
}

TEST(CheckClassesTest, RefusesWhatDoesNotFitTheClasses) {
  const auto expect = [](const LossTerm& term, const char* message) {
    EXPECT_THAT(
        CheckClasses(std::vector{term}, 4),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
  };
  expect(CrossEntropyOf({3, 4}), "term 0: label 4 is not in [0, 4)");
  expect(CrossEntropyOf({-1}), "label -1 is not in");
  expect(CrossEntropyOf({kIgnoredLabel}), "all labels are -100");
  LossTerm masked = CrossEntropyOf({3});
  std::get<CrossEntropy>(masked.loss).class_mask = {true, true};
  expect(masked, "class_mask has 2 values, expected 4");
  std::get<CrossEntropy>(masked.loss).class_mask = {true, true, true, false};
  expect(masked, "label 3 is excluded by class_mask");
  expect({.row_end = 1, .loss = MeanSquaredError{at::zeros({1, 3})}},
         "the target has 3 columns, expected 4");
  expect({.row_end = 1, .loss = KlDivergence{.target = at::zeros({1, 5})}},
         "the target has 5 columns");
  EXPECT_THAT(CheckClasses(std::vector{CrossEntropyOf({3, kIgnoredLabel})}, 4),
              IsOk());
}

}  // namespace
}  // namespace backboned
