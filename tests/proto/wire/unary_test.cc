#include "proto/wire/unary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backboned/v1/backbone_service.pb.h"
#include "tests/proto/wire/buffers.h"
#include "tests/testing/status_matchers.h"

namespace backboned::wire {
namespace {

TEST(UnaryTest, WritesWhatGeneratedCodeWrites) {
  v1::GetParamsRequest request;
  EXPECT_EQ(BytesOf(Serialize(request)), "");
  request.set_instance("net");
  EXPECT_EQ(BytesOf(Serialize(request)), request.SerializeAsString());
}

TEST(UnaryTest, ParsesWhateverTheSlicesAre) {
  for (const size_t slice_bytes : {1, 2, 100}) {
    v1::GetParamsRequest request;
    request.set_instance("old");
    const grpc::ByteBuffer buffer = BufferOf("\x0A\x03net", slice_bytes);
    EXPECT_THAT(Parse(buffer, request), IsOk());
    EXPECT_EQ(request.instance(), "net");
    EXPECT_EQ(BytesOf(buffer), "\x0A\x03net");
  }
}

TEST(UnaryTest, ParsesEmptyMessages) {
  for (const grpc::ByteBuffer& buffer : {grpc::ByteBuffer(), BufferOf("")}) {
    v1::GetParamsRequest request;
    request.set_instance("old");
    EXPECT_THAT(Parse(buffer, request), IsOk());
    EXPECT_EQ(request.instance(), "");
  }
}

TEST(UnaryTest, RefusesWhatIsNoMessage) {
  v1::GetParamsRequest request;
  EXPECT_THAT(Parse(BufferOf("\x0A\x05net"), request),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "cannot decode the message"));
}

}  // namespace
}  // namespace backboned::wire
