// Tests the data side by the contract, through generated stubs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class DataTest : public ::testing::Test {
 protected:
  // Runs a forward that must succeed.
  Streamed<v1::ForwardResult> Forward(const v1::ForwardHeader& header,
                                      const std::vector<float>& x) {
    auto answer = client_.Forward(header, Bytes(x));
    EXPECT_THAT(answer, IsOk());
    return answer.value_or(Streamed<v1::ForwardResult>());
  }

  Streamed<v1::BackwardResult> Backward(const v1::BackwardHeader& header,
                                        const std::vector<float>& grads) {
    auto answer = client_.Backward(header, Bytes(grads));
    EXPECT_THAT(answer, IsOk());
    return answer.value_or(Streamed<v1::BackwardResult>());
  }

  // Keeps a tape of the input [1, 1, 1, 1] times `value`.
  std::string Tape(float value) {
    return Forward(TapedForwardOf(1), std::vector<float>(4, value))
        .header.tape_id();
  }

  v1::Version VersionNow() {
    return client_.GetInstance().value().instance().version();
  }

  TestServer server_;
  PlainClient client_{server_};
};

TEST_F(DataTest, ForwardGivesTheOutputsInTheOrderAskedFor) {
  v1::ForwardHeader header = ForwardOf(2);
  header.clear_outputs();
  for (const char* name : {"layers.0", "out", "features"}) {
    header.add_outputs(name);
  }
  const auto answer = Forward(header, Ascending(8));
  ASSERT_THAT(answer.header.outputs(), SizeIs(3));
  EXPECT_EQ(answer.header.outputs(1).name(), "out");
  EXPECT_EQ(answer.header.outputs(1).dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_THAT(answer.header.outputs(1).shape(), ElementsAre(2, 4));
  EXPECT_THAT(Floats(answer.bytes),
              ElementsAre(2, 4, 6, 8, 10, 12, 14, 16,     //
                          6, 12, 18, 24, 30, 36, 42, 48,  //
                          2, 4, 6, 8, 10, 12, 14, 16));
  EXPECT_THAT(answer.header.tape_id(), IsEmpty());
  EXPECT_EQ(answer.header.version().params(), 1U);
  EXPECT_EQ(answer.header.version().buffers(), 1U);
  EXPECT_EQ(answer.header.version().uid(), VersionNow().uid());
}

TEST_F(DataTest, ReturnTypeIsSugarForOutputs) {
  const auto names_of = [&](v1::ReturnType type) {
    v1::ForwardHeader header = ForwardOf(1);
    header.clear_outputs();
    header.set_return_type(type);
    std::vector<std::string> names;
    const auto answer = Forward(header, Ascending(4));
    for (const auto& spec : answer.header.outputs()) {
      names.push_back(spec.name());
    }
    return names;
  };
  EXPECT_THAT(names_of(v1::RETURN_TYPE_UNSPECIFIED), ElementsAre("out"));
  EXPECT_THAT(names_of(v1::RETURN_TYPE_OUT), ElementsAre("out"));
  EXPECT_THAT(names_of(v1::RETURN_TYPE_FEATURES), ElementsAre("features"));
  EXPECT_THAT(names_of(v1::RETURN_TYPE_BOTH), ElementsAre("out", "features"));
  EXPECT_THAT(names_of(v1::RETURN_TYPE_FULL), ElementsAre("out", "layers.0"));
}

TEST_F(DataTest, ForwardTakesAnEmptyBatch) {
  const auto answer = Forward(ForwardOf(0), {});
  EXPECT_THAT(answer.header.outputs(0).shape(), ElementsAre(0, 4));
  EXPECT_THAT(answer.bytes, IsEmpty());
}

TEST_F(DataTest, TrainingMovesTheBuffersAndReturnsThem) {
  v1::ForwardHeader header = ForwardOf(2);
  header.set_training(true);
  header.set_return_buffers(true);
  const auto answer = Forward(header, Ascending(8));
  ASSERT_THAT(answer.header.buffers(), SizeIs(3));
  EXPECT_EQ(answer.header.buffers(0).name(), "bn.running_mean");
  EXPECT_EQ(answer.header.buffers(2).name(), "bn.num_batches_tracked");
  EXPECT_EQ(answer.header.buffers(2).dtype(), v1::DATA_TYPE_INT64);
  EXPECT_THAT(answer.header.buffers(2).shape(), IsEmpty());
  EXPECT_EQ(answer.header.version().buffers(), 2U);
  EXPECT_EQ(answer.header.version().params(), 1U);
  const auto buffers = client_.GetBuffers();
  ASSERT_THAT(buffers, IsOk());
  EXPECT_EQ(buffers->bytes, answer.bytes.substr(8 * sizeof(float)));
  EXPECT_EQ(buffers->header.version().buffers(), 2U);
}

TEST_F(DataTest, BackwardReturnsGradientsWithPresence) {
  v1::BackwardHeader header =
      BackwardOf(Forward(TapedForwardOf(2), Ascending(8)).header.tape_id(), 2);
  header.set_return_grads(true);
  const auto answer = Backward(header, std::vector<float>(8, 1));
  EXPECT_THAT(answer.header.grads().present(),
              ElementsAre(true, false, false, true));
  EXPECT_THAT(answer.header.grads().spec().shape(), ElementsAre(8));
  EXPECT_THAT(Floats(answer.bytes),
              ElementsAre(18, 24, 30, 36, 12, 16, 20, 24));
  EXPECT_EQ(server_.tape_count(), 0);
  EXPECT_THAT(client_.GetGrads(),  // Nothing was accumulated.
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_NO_GRADIENTS, HasSubstr("\"scale\"")));
}

TEST_F(DataTest, BackwardAccumulatesOntoWhatThereIs) {
  for (int i = 1; i <= 2; ++i) {
    v1::BackwardHeader header = BackwardOf(Tape(1), 1);
    header.set_accumulate(true);
    EXPECT_THAT(Backward(header, {1, 1, 1, 1}).bytes, IsEmpty());
  }
  v1::GetGradsRequest request;
  request.set_allow_absent(true);
  const auto sum = client_.GetGrads(request);
  ASSERT_THAT(sum, IsOk());
  EXPECT_THAT(sum->header.grads().present(),
              ElementsAre(true, false, false, true));
  EXPECT_THAT(Floats(sum->bytes), ElementsAre(6, 6, 6, 6, 4, 4, 4, 4));

  v1::BackwardHeader header = BackwardOf(Tape(1), 1);
  header.set_accumulate(true);
  header.set_zero_before(true);
  Backward(header, {5, 5, 5, 5});
  EXPECT_THAT(Floats(client_.GetGrads(request)->bytes),
              ElementsAre(15, 15, 15, 15, 10, 10, 10, 10));
}

TEST_F(DataTest, BackwardSumsTapesTheNewestFirst) {
  // In any other order the 1 is lost in 1e30.
  const std::string oldest = Tape(1);
  const std::string middle = Tape(-1e30F);
  const std::string newest = Tape(1e30F);
  v1::BackwardHeader header;
  for (const std::string& id : {middle, oldest, newest}) {
    header.MergeFrom(BackwardOf(id, 1));
  }
  header.set_return_grads(true);
  EXPECT_THAT(Floats(Backward(header, std::vector<float>(12, 1)).bytes),
              ElementsAre(3, 3, 3, 3, 2, 2, 2, 2));
}

TEST_F(DataTest, BackwardReturnsEachInputGradientInTheOrderOfTheRequest) {
  v1::ForwardHeader forward = TapedForwardOf(1);
  forward.set_input_grad(true);
  v1::BackwardHeader header;
  std::vector<std::string> ids;
  for (int i = 0; i < 2; ++i) {
    ids.push_back(Forward(forward, Ascending(4)).header.tape_id());
  }
  header.MergeFrom(BackwardOf(ids[1], 1));
  header.MergeFrom(BackwardOf(ids[0], 1));
  header.set_input_grad(true);
  const auto answer = Backward(header, {1, 1, 1, 1, 2, 2, 2, 2});
  ASSERT_THAT(answer.header.input_grads(), SizeIs(2));
  EXPECT_THAT(answer.header.input_grads(0).shape(), ElementsAre(1, 4));
  EXPECT_THAT(Floats(answer.bytes), ElementsAre(6, 6, 6, 6, 12, 12, 12, 12));
}

TEST_F(DataTest, AnOutputThatIsNotNamedHasNoGradient) {
  v1::ForwardHeader forward = TapedForwardOf(1);
  forward.add_outputs("features");
  v1::BackwardHeader header =
      BackwardOf(Forward(forward, Ascending(4)).header.tape_id(), 1);
  header.mutable_tapes(0)->mutable_gradients(0)->set_name("features");
  header.set_return_grads(true);
  const auto answer = Backward(header, {1, 1, 1, 1});
  EXPECT_THAT(answer.header.grads().present(),
              ElementsAre(true, false, false, false));
  EXPECT_THAT(Floats(answer.bytes), ElementsAre(1, 2, 3, 4));
}

TEST_F(DataTest, RetainedTapesSurvive) {
  const std::string id = Tape(1);
  v1::BackwardHeader header = BackwardOf(id, 1);
  header.set_retain(true);
  header.set_return_grads(true);
  const std::string first = Backward(header, {1, 1, 1, 1}).bytes;
  header.set_retain(false);
  EXPECT_EQ(Backward(header, {1, 1, 1, 1}).bytes, first);
  EXPECT_THAT(client_.Backward(header, Bytes({1, 1, 1, 1})),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_TAPE_NOT_FOUND, HasSubstr(id)));
}

TEST_F(DataTest, OnlyTheParametersOfGradParamsGetGradients) {
  v1::ForwardHeader forward = TapedForwardOf(1);
  forward.mutable_grad_params()->add_globs("!scale");
  v1::BackwardHeader header =
      BackwardOf(Forward(forward, Ascending(4)).header.tape_id(), 1);
  header.set_return_grads(true);
  EXPECT_THAT(Backward(header, {1, 1, 1, 1}).header.grads().present(),
              ElementsAre(false, false, false, true));
}

TEST_F(DataTest, WithoutParameterGradientsTheInputsRemains) {
  v1::ForwardHeader forward = TapedForwardOf(1);
  forward.set_no_param_grads(true);
  forward.set_input_grad(true);
  v1::BackwardHeader header =
      BackwardOf(Forward(forward, Ascending(4)).header.tape_id(), 1);
  header.set_return_grads(true);
  header.set_input_grad(true);
  const auto answer = Backward(header, {1, 1, 1, 1});
  EXPECT_THAT(answer.header.grads().present(), Each(false));
  EXPECT_THAT(answer.header.grads().spec().shape(), ElementsAre(0));
  EXPECT_THAT(Floats(answer.bytes), ElementsAre(6, 6, 6, 6));
}

TEST_F(DataTest, ATapeIsExactAfterSetParams) {
  const std::string id = Tape(1);
  ASSERT_THAT(client_.SetParams(SetParamsOf(kElements),
                                Bytes(std::vector<float>(kElements, 100))),
              IsOk());
  v1::BackwardHeader header = BackwardOf(id, 1);
  header.set_return_grads(true);
  const auto answer = Backward(header, {1, 1, 1, 1});
  EXPECT_THAT(Floats(answer.bytes), ElementsAre(3, 3, 3, 3, 2, 2, 2, 2));
  EXPECT_EQ(answer.header.version().params(), 2U);
}

TEST_F(DataTest, ReleasesTapes) {
  v1::ReleaseTapesRequest request;
  request.add_tape_ids(Tape(1));
  request.add_tape_ids("unknown");
  request.add_tape_ids(Tape(1));
  EXPECT_EQ(client_.ReleaseTapes(request)->released_count(), 2);
  EXPECT_EQ(client_.ReleaseTapes(request)->released_count(), 0);
  EXPECT_EQ(server_.tape_count(), 0);
}

TEST_F(DataTest, ForwardDropsReleasedTapesBeforeAnythingElse) {
  v1::ForwardHeader header = ForwardOf(1);
  header.add_release_tapes(Tape(1));
  header.set_instance("unknown");
  EXPECT_THAT(
      client_.Forward(header, ""),
      FailsWith(absl::StatusCode::kNotFound,
                v1::ERROR_REASON_INSTANCE_NOT_FOUND, HasSubstr("\"unknown\"")));
  EXPECT_EQ(server_.tape_count(), 0);
}

TEST_F(DataTest, AcceptsParametersThatAreNoNumbers) {
  std::vector<float> values(kElements, std::numeric_limits<float>::quiet_NaN());
  values[1] = std::numeric_limits<float>::infinity();
  const std::string bytes = Bytes(values);
  ASSERT_THAT(client_.SetParams(SetParamsOf(kElements), bytes), IsOk());
  EXPECT_EQ(client_.GetParams()->bytes, bytes);
  EXPECT_THAT(Forward(ForwardOf(1), {1, 1, 1, 1}).bytes, SizeIs(16));
}

// R15
TEST_F(DataTest, OneInstancesNaNLeavesItsSiblingBitIdentical) {
  server_.AddFake("sibling");
  v1::ForwardHeader sibling = ForwardOf(2);
  sibling.set_instance("sibling");
  sibling.set_training(true);
  v1::GetInstanceRequest request;
  request.set_instance("sibling");
  request.set_digest(true);
  const auto digest = [&] {
    return client_.GetInstance(request)->instance().digest();
  };
  const std::string before = digest();
  ASSERT_THAT(client_.SetParams(
                  SetParamsOf(kElements),
                  Bytes(std::vector<float>(
                      kElements, std::numeric_limits<float>::quiet_NaN()))),
              IsOk());
  v1::ForwardHeader training = TapedForwardOf(2);
  training.set_training(true);
  v1::BackwardHeader backward = BackwardOf(
      Forward(training, std::vector<float>(8, NAN)).header.tape_id(), 2);
  backward.set_accumulate(true);
  Backward(backward, std::vector<float>(8, NAN));
  EXPECT_EQ(digest(), before);
  EXPECT_THAT(Floats(Forward(sibling, Ascending(8)).bytes),
              ElementsAre(6, 12, 18, 24, 30, 36, 42, 48));
  EXPECT_THAT(Floats(Forward(ForwardOf(1), {1, 1, 1, 1}).bytes),
              Each(::testing::IsNan()));
}

TEST_F(DataTest, SetsGradientsWithPresence) {
  v1::SetGradsHeader header;
  header.mutable_selection()->add_globs("scale");
  header.mutable_selection()->add_globs("bn.*");
  for (const bool present : {true, false, true}) {
    header.mutable_grads()->add_present(present);
  }
  *header.mutable_grads()->mutable_spec() = FloatSpec({8});
  const auto set = client_.SetGrads(header, Bytes(Ascending(8)));
  ASSERT_THAT(set, IsOk());
  EXPECT_EQ(set->version().params(), 1U);
  v1::GetGradsRequest request;
  request.set_allow_absent(true);
  const auto got = client_.GetGrads(request);
  EXPECT_THAT(got->header.grads().present(),
              ElementsAre(true, false, true, false));
  EXPECT_THAT(Floats(got->bytes), ElementsAreArray(Ascending(8)));

  v1::BackwardHeader backward = BackwardOf(Tape(1), 1);
  backward.set_accumulate(true);
  Backward(backward, {1, 1, 1, 1});
  EXPECT_THAT(Floats(client_.GetGrads(request)->bytes),
              ElementsAre(4, 5, 6, 7, 5, 6, 7, 8, 2, 2, 2, 2));
}

TEST_F(DataTest, ExtractsFeaturesAndOutputs) {
  v1::ExtractRequest request;
  *request.mutable_input() = FloatSpec({2, 4});
  request.set_data(Bytes(Ascending(8)));
  auto answer = client_.Extract(request);
  ASSERT_THAT(answer, IsOk());
  EXPECT_EQ(answer->instance(), "local/fake");
  EXPECT_EQ(answer->output().name(), "features");
  EXPECT_THAT(answer->output().shape(), ElementsAre(2, 4));
  EXPECT_THAT(Floats(answer->data()), ElementsAre(2, 4, 6, 8, 10, 12, 14, 16));
  v1::GetInstanceRequest get;
  get.set_digest(true);
  EXPECT_EQ(answer->digest(), client_.GetInstance(get)->instance().digest());
  EXPECT_EQ(answer->version().params(), 1U);

  request.set_output("out");
  answer = client_.Extract(request);
  EXPECT_THAT(Floats(answer->data()),
              ElementsAre(6, 12, 18, 24, 30, 36, 42, 48));
}

TEST_F(DataTest, ExtractsImagesAndUnitVectors) {
  v1::ExtractRequest request;
  *request.mutable_input() = FloatSpec({1, 1, 2, 2});
  request.mutable_input()->set_dtype(v1::DATA_TYPE_UINT8);
  request.set_data(std::string("\xff\0\0\xff", 4));
  EXPECT_THAT(Floats(client_.Extract(request)->data()),
              ElementsAre(2, 0, 0, 2));
  request.set_l2_normalize(true);
  const float half = std::sqrt(0.5F);
  EXPECT_THAT(Floats(client_.Extract(request)->data()),
              ElementsAre(half, 0, 0, half));
  request.set_data(std::string(4, '\0'));
  EXPECT_THAT(Floats(client_.Extract(request)->data()), Each(0));
}

TEST_F(DataTest, RefusesExtractsThatMakeNoSense) {
  v1::ExtractRequest request;
  *request.mutable_input() = FloatSpec({1, 4});
  request.set_data(Bytes({1, 2, 3}));
  EXPECT_THAT(client_.Extract(request),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_SHAPE_MISMATCH,
                        HasSubstr("data has 12 bytes, expected 16")));
  request.set_output("logits");
  EXPECT_THAT(client_.Extract(request),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_INVALID_OPTION,
                        HasSubstr("out, features, layers.0")));
}

TEST(ExtractTest, RefusesWhatDoesNotFitAMessageBeforeItIsComputed) {
  constexpr int64_t kSize = 1 << 16;  // A row of the answer has 256 KiB.
  TestServer server({.size = kSize});
  PlainClient client(server);
  const auto extract = [&](int64_t rows) {
    v1::ExtractRequest request;
    *request.mutable_input() = FloatSpec({rows, 1, 256, 256});
    request.mutable_input()->set_dtype(v1::DATA_TYPE_UINT8);
    request.set_data(std::string(static_cast<size_t>(rows * kSize), '\1'));
    return client.Extract(request).status();
  };
  EXPECT_THAT(extract(15), IsOk());
  const int64_t before = server.forward_count();
  const absl::Status refused = extract(16);
  EXPECT_THAT(refused, FailsWith(absl::StatusCode::kResourceExhausted,
                                 v1::ERROR_REASON_LIMIT_REACHED,
                                 HasSubstr("16 rows of 262144 bytes")));
  EXPECT_EQ(server.forward_count(), before);
}

}  // namespace
}  // namespace backboned
