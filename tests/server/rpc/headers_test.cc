// Tests headers that ask for the impossible: nothing changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

class HeadersTest : public ::testing::Test {
 protected:
  HeadersTest() {
    const auto taped = client_.Forward(TapedForwardOf(4), Zeros(kBytes));
    EXPECT_THAT(taped, IsOk());
    backward_ = BackwardOf(taped->header.tape_id(), 4);
    backward_.set_accumulate(true);
    before_ = Everything();
  }

  // Returns all that a call could have changed.
  std::string Everything() {
    v1::GetInstanceRequest request;
    request.set_digest(true);
    v1::GetGradsRequest grads;
    grads.set_allow_absent(true);
    v1::Instance instance = client_.GetInstance(request)->instance();
    instance.clear_idle();
    return absl::StrCat(instance.DebugString(), client_.GetGrads(grads)->bytes);
  }

  // Expects that nothing has changed or leaked, and that the next call works.
  void ExpectUnchanged() {
    EXPECT_EQ(server_.in_flight_bytes(), 0);
    EXPECT_EQ(server_.tape_count(), 1);
    EXPECT_EQ(Everything(), before_);
    EXPECT_THAT(client_.Backward(backward_, Zeros(kBytes)), IsOk());
  }

  TestServer server_;
  PlainClient client_{server_};
  v1::BackwardHeader backward_;  // Of the only tape.
  std::string before_;
};

TEST_F(HeadersTest, RefusesOtherShapesWithBoth) {
  const auto mismatch = [](const std::string& message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_SHAPE_MISMATCH, HasSubstr(message));
  };
  EXPECT_THAT(client_.Forward(ForwardOf(2, 5), Zeros(40)),
              mismatch("shape [2, 5], expected [N, 4]"));
  EXPECT_THAT(client_.SetParams(SetParamsOf(15), Zeros(60)),
              mismatch("shape [15], expected [16]"));
  v1::BackwardHeader backward = backward_;
  backward.mutable_tapes(0)->mutable_gradients(0)->set_shape(0, 3);
  EXPECT_THAT(client_.Backward(backward, Zeros(48)),
              mismatch("\"out\" has shape [3, 4], expected [4, 4]"));
  ExpectUnchanged();
}

TEST_F(HeadersTest, RefusesOtherElementTypes) {
  const auto mismatch = [](const std::string& message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_DTYPE_MISMATCH, HasSubstr(message));
  };
  v1::ForwardHeader forward = ForwardOf(2);
  forward.mutable_inputs(0)->set_dtype(v1::DATA_TYPE_INT64);
  EXPECT_THAT(client_.Forward(forward, Zeros(64)),
              mismatch("the input is int64, expected uint8, float32, float64, "
                       "float16 or bfloat16"));
  v1::SetParamsHeader params = SetParamsOf(kElements);
  params.mutable_spec()->set_dtype(v1::DATA_TYPE_INT64);
  EXPECT_THAT(client_.SetParams(params, Zeros(128)),
              mismatch("the flat tensor is int64, expected float32"));
  v1::BackwardHeader backward = backward_;
  backward.mutable_tapes(0)->mutable_gradients(0)->set_dtype(
      v1::DATA_TYPE_UINT8);
  EXPECT_THAT(client_.Backward(backward, Zeros(16)),
              mismatch("the gradient of \"out\" is uint8, expected float32"));
  v1::ForwardHeader outputs = ForwardOf(2);
  outputs.set_output_dtype(v1::DATA_TYPE_UINT8);
  EXPECT_THAT(client_.Forward(outputs, Zeros(32)),
              mismatch("output_dtype is uint8, expected float32"));
  v1::GetParamsRequest get;
  get.set_dtype(v1::DATA_TYPE_INT64);
  EXPECT_THAT(client_.GetParams(get), mismatch("dtype is int64, expected"));
  ExpectUnchanged();
}

TEST_F(HeadersTest, RefusesForwardsThatMakeNoSense) {
  const auto expect_invalid = [&](const v1::ForwardHeader& header,
                                  const std::string& message) {
    EXPECT_THAT(client_.Forward(header, Zeros(32)),
                FailsWith(absl::StatusCode::kInvalidArgument,
                          v1::ERROR_REASON_INVALID_OPTION, HasSubstr(message)));
  };
  v1::ForwardHeader header = ForwardOf(2);
  header.set_outputs(0, "logits");
  expect_invalid(header, "valid outputs: out, features, layers.0");
  header = ForwardOf(2);
  header.add_outputs("out");
  expect_invalid(header, "twice");
  header = ForwardOf(2);
  header.set_return_type(v1::RETURN_TYPE_OUT);
  expect_invalid(header, "either outputs or return_type");
  header = ForwardOf(2);
  header.clear_outputs();
  header.set_return_type(static_cast<v1::ReturnType>(9));
  expect_invalid(header, "return_type 9");
  header = ForwardOf(2);
  header.set_input_grad(true);
  expect_invalid(header, "input_grad needs tape");
  header = ForwardOf(2);
  header.clear_inputs();
  expect_invalid(header, "takes 1 input, the header has 0");
  header = ForwardOf(2);
  header.mutable_grad_params()->mutable_range()->set_end(2);
  expect_invalid(header, "of 4; select whole parameters");
  header = ForwardOf(2);
  header.set_request_id("not a token");
  expect_invalid(header, "request_id");
  ExpectUnchanged();
}

// R5, R12
TEST_F(HeadersTest, RefusesAForwardWhoseSizesAddUpToTooMuch) {
  v1::ForwardHeader header = ForwardOf(1);
  const auto buffers = client_.GetBuffers();
  *header.mutable_buffers() = buffers->header.buffers();
  // The input's size alone fits an int64; with the buffers it does not.
  *header.mutable_inputs(0) = FloatSpec({(int64_t{1} << 59) - 1, 4});
  RawCall call(server_.channel(), "Forward");
  call.Send(Message(header));
  EXPECT_THAT(call.End(),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_SHAPE_MISMATCH,
                        HasSubstr("add up to more than 2^63 - 1 bytes")));
  ExpectUnchanged();
}

TEST_F(HeadersTest, RefusesBackwardsThatMakeNoSense) {
  v1::BackwardHeader valid = backward_;
  const auto expect_invalid = [&](const v1::BackwardHeader& header,
                                  const std::string& message) {
    EXPECT_THAT(client_.Backward(header, Zeros(kBytes)),
                FailsWith(absl::StatusCode::kInvalidArgument,
                          v1::ERROR_REASON_INVALID_OPTION, HasSubstr(message)));
  };
  v1::BackwardHeader header = valid;
  header.clear_tapes();
  expect_invalid(header, "names no tape");
  header = valid;
  header.set_accumulate(false);
  header.set_zero_before(true);
  expect_invalid(header, "zero_before needs accumulate");
  header = valid;
  header.set_input_grad(true);
  expect_invalid(header, "made without input_grad");
  header = valid;
  *header.add_tapes() = header.tapes(0);
  expect_invalid(header, "named twice");
  header = valid;
  *header.mutable_tapes(0)->add_gradients() = header.tapes(0).gradients(0);
  expect_invalid(header, "two gradients of \"out\"");
  header = valid;
  header.mutable_tapes(0)->mutable_gradients(0)->set_name("features");
  expect_invalid(header, "no output \"features\"");
  // A name of other characters comes as ASCII, so that anybody can decode it.
  std::string name = "x";
  for (int i = 0; i < 80; ++i) name += "\xc3\xa4";
  header.mutable_tapes(0)->mutable_gradients(0)->set_name(name);
  expect_invalid(header, "no output \"x\\303\\244");
  header = valid;
  header.mutable_tapes(0)->set_tape_id("unknown");
  EXPECT_THAT(client_.Backward(header, Zeros(kBytes)),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_TAPE_NOT_FOUND, HasSubstr("unknown")));
  ExpectUnchanged();
}

TEST_F(HeadersTest, ATapeBelongsToItsInstance) {
  server_.AddFake("sibling");
  v1::BackwardHeader header = backward_;
  header.set_instance("sibling");
  EXPECT_THAT(client_.Backward(header, Zeros(kBytes)),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_TAPE_NOT_FOUND,
                        HasSubstr("of another instance")));
  ExpectUnchanged();
}

TEST_F(HeadersTest, RefusesStaleVersions) {
  const auto stale = [](const std::string& message) {
    return FailsWith(absl::StatusCode::kAborted, v1::ERROR_REASON_STALE_VERSION,
                     HasSubstr(message));
  };
  v1::SetParamsHeader params = SetParamsOf(kElements);
  params.mutable_if_version()->set_params(7);
  EXPECT_THAT(client_.SetParams(params, Zeros(kBytes)),
              stale("has params 7, the instance has 1;"));
  for (const bool training : {false, true}) {
    v1::ForwardHeader forward = TapedForwardOf(2);
    forward.set_training(training);
    forward.mutable_if_version()->set_buffers(7);
    EXPECT_THAT(client_.Forward(forward, Zeros(32)),
                stale("has buffers 7, the instance has 1;"));
  }
  v1::GetParamsRequest get;
  get.mutable_if_version()->set_uid("other");
  EXPECT_THAT(client_.GetParams(get), stale("has uid \"other\""));
  v1::SetGradsHeader grads;
  grads.mutable_if_version()->set_params(2);
  *grads.mutable_grads()->mutable_spec() = FloatSpec({kElements});
  EXPECT_THAT(client_.SetGrads(grads, Zeros(kBytes)),
              stale("has params 2, the instance has 1;"));
  ExpectUnchanged();
}

// Images whose channels the instance's normalization does not fit.
TEST_F(HeadersTest, RefusesImagesThatCannotBeNormalized) {
  v1::CreateInstanceRequest create;
  create.set_name("mlp");
  create.set_architecture("mnistmlp");
  (*create.mutable_arguments())["num_classes"].set_int_value(2);
  create.mutable_normalization()->add_mean(0.5);
  create.mutable_normalization()->add_std(0.5);
  ASSERT_THAT(client_.CreateInstance(create), IsOk());
  v1::ForwardHeader header = ForwardOf(1, 784);
  header.set_instance("mlp");
  EXPECT_THAT(client_.Forward(header, Zeros(4 * 784)), IsOk());
  header.mutable_inputs(0)->set_dtype(v1::DATA_TYPE_UINT8);
  EXPECT_THAT(
      client_.Forward(header, Zeros(784)),
      FailsWith(absl::StatusCode::kInvalidArgument,
                v1::ERROR_REASON_SHAPE_MISMATCH, HasSubstr("[1, 784]")));
  *header.mutable_inputs(0) = FloatSpec({1, 1, 28, 28});
  header.mutable_inputs(0)->set_dtype(v1::DATA_TYPE_UINT8);
  EXPECT_THAT(client_.Forward(header, Zeros(784)), IsOk());
}

}  // namespace
}  // namespace backboned
