#include "backbones/optimizer_slots.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "tests/testing/status_matchers.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class SlotPlanTest : public ::testing::Test {
 protected:
  // Makes the layout of `a` [2] and `b` [3], of which Adam steps only `b`.
  SlotPlanTest() {
    layout_.AddParameter("a", {2});
    layout_.AddParameter("b", {3});
    state_.params = {at::ones({2}), at::ones({3})};
    ParameterGroup group;
    group.selection =
        std::make_shared<const Selection>(Selection{.globs = {"b"}});
    adam_ = MakeOptimizer(OptimizerKind::kAdam, {group}, layout_).value();
  }

  SlotPlan Plan() const { return SlotPlan(*adam_, layout_, state_); }

  Layout layout_;
  State state_;
  OptimizerPtr adam_;
};

TEST_F(SlotPlanTest, NamesTheTensorsOfWhatIsStepped) {
  EXPECT_THAT(SlotTensorNames(*adam_, layout_, 0), IsEmpty());
  EXPECT_THAT(SlotTensorNames(*adam_, layout_, 1),
              ElementsAre("b/step", "b/exp_avg", "b/exp_avg_sq"));
}

TEST_F(SlotPlanTest, PutsTensorsOfAnyOrderInTheirPlaces) {
  SlotPlan plan = Plan();
  EXPECT_THAT(plan.Add("b/exp_avg_sq").value().sizes(), ElementsAre(3));
  EXPECT_THAT(plan.Add("b/step").value().sizes(), IsEmpty());
  EXPECT_THAT(plan.Add("b/exp_avg").value().sizes(), ElementsAre(3));
  EXPECT_THAT(plan.CheckComplete(), IsOk());
  EXPECT_THAT(plan.models(), SizeIs(3));
  const std::vector<at::Tensor> values = {at::full({3}, 2, at::kFloat),
                                          at::full({}, 7, at::kFloat),
                                          at::full({3}, 3, at::kFloat)};
  const OptimizerPtr filled = plan.Fill(*adam_, values);
  EXPECT_THAT(filled->slots[0], IsEmpty());
  ASSERT_THAT(filled->slots[1], SizeIs(3));
  EXPECT_EQ(filled->slots[1][0].item<float>(), 7);
  EXPECT_EQ(filled->slots[1][1][0].item<float>(), 3);
  EXPECT_EQ(filled->slots[1][2][0].item<float>(), 2);
  EXPECT_THAT(adam_->slots[1], IsEmpty());
}

TEST_F(SlotPlanTest, RefusesTensorsThatTheOptimizerDoesNotHave) {
  SlotPlan plan = Plan();
  for (const char* name :
       {"a/step", "b/momentum_buffer", "b", "b/", "c/step"}) {
    const absl::Status refused = plan.Add(name).status();
    EXPECT_THAT(refused,
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr(absl::StrCat("no tensor \"", name, "\""))));
    EXPECT_EQ(ReasonOf(refused), Reason::kInvalidOption);
  }
  EXPECT_THAT(plan.models(), IsEmpty());
}

TEST_F(SlotPlanTest, WantsAllTensorsOfAParameterOrNone) {
  SlotPlan plan = Plan();
  EXPECT_THAT(plan.CheckComplete(), IsOk());
  EXPECT_THAT(plan.Add("b/step"), IsOk());
  EXPECT_THAT(plan.Add("b/step"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "the header has two tensors \"b/step\""));
  EXPECT_THAT(plan.CheckComplete(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "the header has no tensor \"b/exp_avg\""));
}

}  // namespace
}  // namespace backboned
