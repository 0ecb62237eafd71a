// Tests element types by the contract, through generated stubs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Of a mnistmlp with three classes and two hidden units.
constexpr int64_t kMlpElements = 784 * 2 + 2 + 2 * 2 + 2 + 2 * 3 + 3;

class DtypesTest : public ::testing::Test {
 protected:
  void Create(v1::DataType dtype) {
    v1::CreateInstanceRequest request;
    request.set_name("net");
    request.set_architecture("mnistmlp");
    (*request.mutable_arguments())["num_classes"].set_int_value(3);
    (*request.mutable_arguments())["mlp_hidden_size"].set_int_value(2);
    request.set_seed(0);
    request.set_dtype(dtype);
    const auto created = client_.CreateInstance(request);
    ASSERT_THAT(created, IsOk());
    EXPECT_EQ(created->instance().dtype(), dtype);
  }

  static v1::ForwardHeader Header() {
    v1::ForwardHeader header = ForwardOf(2, 784);
    header.set_instance("net");
    return header;
  }

  const std::string input_ = std::string(2 * 784 * 4, '\0');
  TestServer server_;
  PlainClient client_{server_};
};

TEST_F(DtypesTest, AnswersComeAsStoredOrAsAskedFor) {
  Create(v1::DATA_TYPE_FLOAT64);
  v1::GetParamsRequest request;
  request.set_instance("net");
  const auto stored = client_.GetParams(request);
  ASSERT_THAT(stored, IsOk());
  EXPECT_EQ(stored->header.spec().dtype(), v1::DATA_TYPE_FLOAT64);
  EXPECT_THAT(stored->bytes, SizeIs(8 * kMlpElements));
  request.set_dtype(v1::DATA_TYPE_BFLOAT16);
  const auto narrow = client_.GetParams(request);
  ASSERT_THAT(narrow, IsOk());
  EXPECT_EQ(narrow->header.spec().dtype(), v1::DATA_TYPE_BFLOAT16);
  EXPECT_THAT(narrow->bytes, SizeIs(2 * kMlpElements));
}

TEST_F(DtypesTest, OutputsComeAsComputedOrAsAskedFor) {
  Create(v1::DATA_TYPE_BFLOAT16);
  const auto computed = client_.Forward(Header(), input_);
  ASSERT_THAT(computed, IsOk());
  EXPECT_EQ(computed->header.outputs(0).dtype(), v1::DATA_TYPE_BFLOAT16);
  EXPECT_THAT(computed->bytes, SizeIs(2 * 2 * 3));
  v1::ForwardHeader wide = Header();
  wide.set_output_dtype(v1::DATA_TYPE_FLOAT64);
  const auto converted = client_.Forward(wide, input_);
  ASSERT_THAT(converted, IsOk());
  EXPECT_EQ(converted->header.outputs(0).dtype(), v1::DATA_TYPE_FLOAT64);
  EXPECT_THAT(converted->header.outputs(0).shape(), ElementsAre(2, 3));
  EXPECT_THAT(converted->bytes, SizeIs(8 * 2 * 3));
}

TEST_F(DtypesTest, NarrowTypesRunInEvaluationOnly) {
  Create(v1::DATA_TYPE_FLOAT16);
  const auto refused = FailsWith(
      absl::StatusCode::kFailedPrecondition, v1::ERROR_REASON_READ_ONLY,
      HasSubstr("\"net\" has dtype float16, which allows evaluation only"));
  v1::ForwardHeader training = Header();
  training.set_training(true);
  EXPECT_THAT(client_.Forward(training, input_), refused);
  v1::ForwardHeader taped = Header();
  taped.set_tape(true);
  EXPECT_THAT(client_.Forward(taped, input_), refused);
  v1::SetGradsHeader grads;
  grads.set_instance("net");
  *grads.mutable_grads()->mutable_spec() = FloatSpec({kMlpElements});
  EXPECT_THAT(client_.SetGrads(grads, std::string(4 * kMlpElements, '\0')),
              refused);
  EXPECT_THAT(client_.Forward(Header(), input_), IsOk());
}

TEST_F(DtypesTest, AnInstanceHasAFloatingPointType) {
  v1::CreateInstanceRequest request;
  request.set_architecture("mnistmlp");
  (*request.mutable_arguments())["num_classes"].set_int_value(3);
  request.set_dtype(v1::DATA_TYPE_INT64);
  EXPECT_THAT(client_.CreateInstance(request),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_DTYPE_MISMATCH,
                        HasSubstr("dtype is int64, expected float32")));
}

}  // namespace
}  // namespace backboned
