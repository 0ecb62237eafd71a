// Tests whole training steps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Returns the bytes of int64 labels.
std::string LabelBytes(const std::vector<int64_t>& labels) {
  return {reinterpret_cast<const char*>(labels.data()),
          labels.size() * sizeof(int64_t)};
}

// Returns a step of two samples with the mean squared error to zeros.
v1::TrainStepHeader SquaredError() {
  v1::TrainStepHeader header;
  *header.mutable_input() = FloatSpec({2, 4});
  *header.add_terms()->mutable_mean_squared_error()->mutable_target() =
      FloatSpec({2, 4});
  return header;
}

// Returns a step with the cross-entropy of labels.
v1::TrainStepHeader Labelled(int64_t rows = 2) {
  v1::TrainStepHeader header;
  *header.mutable_input() = FloatSpec({2, 4});
  v1::TensorSpec& labels =
      *header.add_terms()->mutable_cross_entropy()->mutable_labels();
  labels.set_dtype(v1::DATA_TYPE_INT64);
  labels.add_shape(rows);
  return header;
}

class TrainStepTest : public ::testing::Test {
 protected:
  void Configure() {
    v1::ConfigureOptimizerRequest request;
    request.mutable_optimizer()->set_kind(v1::OPTIMIZER_KIND_SGD);
    request.mutable_optimizer()->add_groups()->set_lr(1);
    EXPECT_THAT(client_.ConfigureOptimizer(request), IsOk());
  }

  v1::Instance Described() { return client_.GetInstance().value().instance(); }

  void ExpectRefused(const v1::TrainStepHeader& header,
                     const std::string& bytes, v1::ErrorReason reason,
                     const char* message) {
    EXPECT_THAT(client_.TrainStep(header, bytes),
                FailsWith(absl::StatusCode::kInvalidArgument, reason,
                          HasSubstr(message)));
  }

  const std::string input_ = Bytes(std::vector<float>(8, 1));
  const std::string zeros_ = Bytes(std::vector<float>(8, 0));
  TestServer server_;
  PlainClient client_{server_};
};

TEST_F(TrainStepTest, RunsForwardLossBackwardAndStep) {
  Configure();
  v1::TrainStepHeader header = SquaredError();
  header.mutable_terms(0)->set_weight(0.5);
  header.set_return_logits(true);
  header.mutable_step()->mutable_clip_norm()->set_max_norm(1e6);
  const auto answer = client_.TrainStep(header, input_ + zeros_);
  ASSERT_THAT(answer, IsOk());
  EXPECT_THAT(answer->header.losses(), ElementsAre(36));
  EXPECT_EQ(answer->header.loss(), 18);
  EXPECT_THAT(Floats(answer->bytes), AllOf(SizeIs(8), Each(6)));
  EXPECT_EQ(answer->header.logits().name(), "out");
  EXPECT_EQ(answer->header.step().stepped_count(), 2);
  EXPECT_EQ(answer->header.version().params(), 2U);
  EXPECT_EQ(answer->header.version().buffers(), 2U);
  // The logits' gradient is 0.5 * 2 * 6 / 8; of two samples 1.5 comes together.
  EXPECT_THAT(Floats(client_.GetParams()->bytes),
              ElementsAre(-2.5F, -2.5F, -2.5F, -2.5F, 1, 1, 1, 1,  //
                          0, 0, 0, 0, 0, 0, 0, 0));
  v1::GetGradsRequest grads;
  grads.set_allow_absent(true);
  EXPECT_THAT(client_.GetGrads(grads)->header.grads().present(), Each(false));
  EXPECT_EQ(Described().counters().steps(), 1);
  EXPECT_EQ(server_.tape_count(), 0);
}

TEST_F(TrainStepTest, DoesNotUseTheGradientsThatAreThere) {
  Configure();
  v1::SetGradsHeader grads;
  *grads.mutable_grads()->mutable_spec() = FloatSpec({16});
  EXPECT_THAT(client_.SetGrads(grads, Bytes(std::vector<float>(16, 100))),
              IsOk());
  const auto answer = client_.TrainStep(SquaredError(), input_ + zeros_);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->header.step().stepped_count(), 2);
}

TEST_F(TrainStepTest, TakesTheCrossEntropyOfLabels) {
  Configure();
  v1::TrainStepHeader header = Labelled();
  const auto answer = client_.TrainStep(header, input_ + LabelBytes({0, 3}));
  ASSERT_THAT(answer, IsOk());
  EXPECT_NEAR(answer->header.loss(), 1.386294, 1e-5);  // log 4
}

TEST_F(TrainStepTest, IsAppliedOnce) {
  Configure();
  v1::TrainStepHeader header = SquaredError();
  header.set_request_id("train-1");
  header.set_return_logits(true);
  const auto first = client_.TrainStep(header, input_ + zeros_);
  const auto second = client_.TrainStep(header, input_ + zeros_);
  ASSERT_THAT(second, IsOk());
  EXPECT_EQ(second->header.DebugString(), first->header.DebugString());
  EXPECT_EQ(second->bytes, first->bytes);
  EXPECT_EQ(server_.forward_count(), 1);
}

TEST_F(TrainStepTest, NeedsAnOptimizer) {
  EXPECT_THAT(client_.TrainStep(SquaredError(), input_ + zeros_),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_NO_OPTIMIZER, HasSubstr("optimizer")));
  EXPECT_EQ(server_.forward_count(), 0);
}

TEST_F(TrainStepTest, RefusesAStaleVersion) {
  Configure();
  v1::TrainStepHeader header = SquaredError();
  header.mutable_if_version()->set_params(3);
  EXPECT_THAT(
      client_.TrainStep(header, input_ + zeros_),
      FailsWith(absl::StatusCode::kAborted, v1::ERROR_REASON_STALE_VERSION,
                HasSubstr("has params 3, the")));
}

TEST_F(TrainStepTest, RefusesTermsThatDoNotFit) {
  Configure();
  v1::TrainStepHeader header;
  *header.mutable_input() = FloatSpec({2, 4});
  ExpectRefused(header, input_, v1::ERROR_REASON_INVALID_OPTION,
                "the header has no loss term");
  header.add_terms();
  ExpectRefused(header, input_, v1::ERROR_REASON_INVALID_OPTION,
                "term 0: no loss is set");
  header = Labelled(/*rows=*/3);
  ExpectRefused(header, input_ + LabelBytes({0, 1, 2}),
                v1::ERROR_REASON_SHAPE_MISMATCH,
                "term 0: the labels have shape [3], expected [2]");
  header = Labelled();
  header.mutable_terms(0)->set_row_begin(1);
  ExpectRefused(header, input_ + LabelBytes({0, 1}),
                v1::ERROR_REASON_SHAPE_MISMATCH, "expected [1]");
  header.mutable_terms(0)->set_row_end(3);
  ExpectRefused(header, input_ + LabelBytes({0, 1}),
                v1::ERROR_REASON_INVALID_OPTION,
                "rows [1, 3) are not within a batch of 2 rows");
  EXPECT_EQ(server_.forward_count(), 0);
  EXPECT_EQ(server_.in_flight_bytes(), 0);
}

TEST_F(TrainStepTest, ALabelOfNoClassChangesNothing) {
  Configure();
  ExpectRefused(Labelled(), input_ + LabelBytes({0, 4}),
                v1::ERROR_REASON_INVALID_OPTION,
                "term 0: label 4 is not in [0, 4)");
  EXPECT_EQ(Described().version().buffers(), 1U);
  EXPECT_EQ(Described().version().params(), 1U);
}

TEST_F(TrainStepTest, AFailedBackwardChangesNothing) {
  Configure();
  server_.OnBackward([] { throw std::runtime_error("broken"); });
  EXPECT_THAT(
      client_.TrainStep(SquaredError(), input_ + zeros_),
      FailsWith(absl::StatusCode::kInternal, v1::ERROR_REASON_COMPUTE_FAILED,
                HasSubstr("its log has the cause")));
  EXPECT_EQ(Described().version().buffers(), 1U);
  EXPECT_EQ(Described().version().params(), 1U);
  EXPECT_EQ(Described().counters().steps(), 0);
  server_.OnBackward({});
  EXPECT_THAT(client_.TrainStep(SquaredError(), input_ + zeros_), IsOk());
}

}  // namespace
}  // namespace backboned
