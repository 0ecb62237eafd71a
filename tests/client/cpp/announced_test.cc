#include "client/cpp/announced.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "backboned/v1/backbone_service.pb.h"

namespace backboned::client {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> NamesIn(const google::protobuf::Message& header) {
  std::vector<std::string> names;
  for (const v1::TensorSpec* spec : AnnouncedBy(header)) {
    names.push_back(spec->name());
  }
  return names;
}

TEST(AnnouncedTest, FindsOutputsThenBuffers) {
  v1::ForwardResult result;
  result.add_buffers()->set_name("mean");
  result.add_outputs()->set_name("out");
  result.add_outputs()->set_name("features");
  EXPECT_THAT(NamesIn(result), ElementsAre("out", "features", "mean"));
}

TEST(AnnouncedTest, FindsEveryKindOfGradient) {
  v1::BackwardResult result;
  result.mutable_squared_grads()->mutable_spec()->set_name("squared");
  result.add_tape_grads()->mutable_spec()->set_name("first tape");
  result.add_tape_grads()->mutable_spec()->set_name("second tape");
  result.add_input_grads()->set_name("input");
  result.mutable_grads()->mutable_spec()->set_name("sum");
  EXPECT_THAT(NamesIn(result), ElementsAre("sum", "input", "first tape",
                                           "second tape", "squared"));
}

TEST(AnnouncedTest, FindsWhatAnOptimizerRemembers) {
  v1::GetOptimizerStateResult result;
  result.mutable_optimizer()->add_groups()->mutable_selection();
  result.add_tensors()->set_name("head/step");
  EXPECT_THAT(NamesIn(result), ElementsAre("head/step"));
}

TEST(AnnouncedTest, FindsNothingWhereNothingIs) {
  EXPECT_THAT(NamesIn(v1::BackwardResult()), IsEmpty());
  EXPECT_THAT(NamesIn(v1::SetParamsResponse()), IsEmpty());
}

// The bytes of a term's labels follow the input's.
TEST(AnnouncedTest, KnowsRequestsToo) {
  v1::TrainStepHeader header;
  header.add_terms()->mutable_cross_entropy()->mutable_labels()->set_name("y");
  header.add_terms()->mutable_kl_divergence()->mutable_target()->set_name("t");
  header.mutable_input()->set_name("x");
  EXPECT_THAT(NamesIn(header), ElementsAre("x", "y", "t"));
}

}  // namespace
}  // namespace backboned::client
