// Tests parameters, gradients and buffers by the contract, through generated
// stubs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

class TransfersTest : public ::testing::Test {
 protected:
  v1::Version VersionNow() {
    return client_.GetInstance().value().instance().version();
  }

  TestServer server_;
  PlainClient client_{server_};
};

TEST_F(TransfersTest, SetsAndGetsParameters) {
  const auto before = client_.GetParams();
  ASSERT_THAT(before, IsOk());
  EXPECT_THAT(Floats(before->bytes),
              ElementsAre(2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 3, 3, 3, 3));
  EXPECT_THAT(before->header.spec().shape(), ElementsAre(kElements));

  const std::vector<float> values = Ascending(kElements);
  const auto set = client_.SetParams(SetParamsOf(kElements), Bytes(values));
  ASSERT_THAT(set, IsOk());
  EXPECT_EQ(set->version().params(), 2U);
  EXPECT_EQ(set->version().buffers(), 1U);
  const auto after = client_.GetParams();
  EXPECT_EQ(after->header.version().params(), 2U);
  EXPECT_THAT(Floats(after->bytes), ElementsAreArray(values));
  EXPECT_EQ(server_.in_flight_bytes(), 0);
}

TEST_F(TransfersTest, SelectsParametersByPattern) {
  v1::SetParamsHeader header = SetParamsOf(8);
  header.mutable_selection()->add_globs("*");
  header.mutable_selection()->add_globs("!bn.*");
  ASSERT_THAT(client_.SetParams(header, Bytes(Ascending(8))), IsOk());
  EXPECT_THAT(Floats(client_.GetParams()->bytes),
              ElementsAre(1, 2, 3, 4, 1, 1, 1, 1, 0, 0, 0, 0, 5, 6, 7, 8));
  v1::GetParamsRequest request;
  request.mutable_selection()->add_globs("he*d");
  EXPECT_THAT(Floats(client_.GetParams(request)->bytes),
              ElementsAre(5, 6, 7, 8));
}

TEST_F(TransfersTest, SelectsARangeThatCutsTensors) {
  v1::SetParamsHeader header = SetParamsOf(8);
  header.mutable_selection()->mutable_range()->set_begin(2);
  header.mutable_selection()->mutable_range()->set_end(10);
  ASSERT_THAT(client_.SetParams(header, Bytes(Ascending(8, 10))), IsOk());
  EXPECT_THAT(
      Floats(client_.GetParams()->bytes),
      ElementsAre(2, 2, 10, 11, 12, 13, 14, 15, 16, 17, 0, 0, 3, 3, 3, 3));
  v1::GetParamsRequest request;
  request.mutable_selection()->mutable_range()->set_begin(3);
  request.mutable_selection()->mutable_range()->set_end(5);
  EXPECT_THAT(Floats(client_.GetParams(request)->bytes), ElementsAre(11, 12));
}

TEST_F(TransfersTest, RefusesSelectionsThatSelectNothing) {
  v1::GetParamsRequest request;
  request.mutable_selection()->add_globs("nothing*");
  EXPECT_THAT(
      client_.GetParams(request),
      FailsWith(absl::StatusCode::kInvalidArgument,
                v1::ERROR_REASON_INVALID_OPTION, HasSubstr("nothing*")));
  request.mutable_selection()->mutable_range()->set_end(kElements + 1);
  request.mutable_selection()->clear_globs();
  EXPECT_THAT(client_.GetParams(request),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_INVALID_OPTION, HasSubstr("[0, 17)")));
}

TEST_F(TransfersTest, SetsEveryGradientIfPresenceIsEmpty) {
  v1::SetGradsHeader header;
  *header.mutable_grads()->mutable_spec() = FloatSpec({kElements});
  ASSERT_THAT(client_.SetGrads(header, Bytes(Ascending(kElements))), IsOk());
  EXPECT_THAT(Floats(client_.GetGrads()->bytes),
              ElementsAreArray(Ascending(kElements)));

  v1::ZeroGradsRequest request;
  request.mutable_selection()->add_globs("bn.*");
  ASSERT_THAT(client_.ZeroGrads(request), IsOk());
  v1::GetGradsRequest get;
  get.set_allow_absent(true);
  EXPECT_THAT(client_.GetGrads(get)->header.grads().present(),
              ElementsAre(true, false, false, true));
  ASSERT_THAT(client_.ZeroGrads(), IsOk());
  EXPECT_THAT(client_.GetGrads(get)->header.grads().present(), Each(false));
  EXPECT_THAT(client_.GetGrads(get)->bytes, IsEmpty());
}

TEST_F(TransfersTest, RefusesGradientsThatCutATensor) {
  v1::SetGradsHeader header;
  header.mutable_selection()->mutable_range()->set_end(6);
  *header.mutable_grads()->mutable_spec() = FloatSpec({6});
  EXPECT_THAT(client_.SetGrads(header, Bytes(Ascending(6))),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_INVALID_OPTION,
                        HasSubstr("of 4; select whole parameters")));
  header.clear_selection();
  header.mutable_grads()->add_present(true);
  EXPECT_THAT(client_.SetGrads(header, Bytes(Ascending(6))),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_SHAPE_MISMATCH,
                        HasSubstr("present has 1 values, expected 4")));
}

TEST_F(TransfersTest, SetsAndGetsBuffers) {
  v1::SetBuffersHeader header;
  header.mutable_selection()->add_globs("*num_batches*");
  v1::TensorSpec& spec = *header.add_buffers();
  spec.set_name("bn.num_batches_tracked");
  spec.set_dtype(v1::DATA_TYPE_INT64);
  const auto set =
      client_.SetBuffers(header, std::string("\x05\0\0\0\0\0\0\0", 8));
  ASSERT_THAT(set, IsOk());
  EXPECT_EQ(set->version().buffers(), 2U);
  EXPECT_EQ(set->version().params(), 1U);
  const auto got = client_.GetBuffers();
  ASSERT_THAT(got, IsOk());
  ASSERT_THAT(got->header.buffers(), SizeIs(3));
  EXPECT_EQ(got->header.buffers(1).name(), "bn.running_var");
  EXPECT_THAT(Floats(got->bytes.substr(0, 32)),
              ElementsAre(0, 0, 0, 0, 1, 1, 1, 1));
  EXPECT_EQ(got->bytes.substr(32), std::string("\x05\0\0\0\0\0\0\0", 8));
}

TEST_F(TransfersTest, RefusesOtherBuffersThanThoseSelected) {
  const auto got = client_.GetBuffers();
  v1::SetBuffersHeader header;
  *header.mutable_buffers() = got->header.buffers();
  header.mutable_buffers()->SwapElements(0, 1);
  EXPECT_THAT(client_.SetBuffers(header, got->bytes),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_SHAPE_MISMATCH,
                        HasSubstr("buffer 0 is \"bn.running_var\"")));
  header.mutable_buffers()->RemoveLast();
  EXPECT_THAT(client_.SetBuffers(header, got->bytes),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_SHAPE_MISMATCH,
                        HasSubstr("2 buffers, expected 3")));
  header.mutable_selection()->mutable_range()->set_end(1);
  EXPECT_THAT(client_.SetBuffers(header, got->bytes),
              FailsWith(absl::StatusCode::kInvalidArgument,
                        v1::ERROR_REASON_INVALID_OPTION,
                        HasSubstr("range does not apply")));
  EXPECT_EQ(VersionNow().buffers(), 1U);
}

}  // namespace
}  // namespace backboned
