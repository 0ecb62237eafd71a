// Sends streams that a careful client would not send: nothing changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/limits/limits.h"
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::HasSubstr;

// A method that takes a stream, its header, and the bytes that it announces.
struct Upload {
  std::string method;
  std::string header;  // As a message of the stream.
  int64_t bytes;

  friend std::ostream& operator<<(std::ostream& out, const Upload& upload) {
    return out << upload.method;
  }
};

class UploadsTest : public ::testing::Test {
 protected:
  UploadsTest() {
    v1::ForwardHeader training = TapedForwardOf(4);
    training.set_training(true);
    v1::SetGradsHeader grads;
    grads.set_instance("fake");
    *grads.mutable_grads()->mutable_spec() = FloatSpec({kElements});
    v1::SetBuffersHeader buffers;
    buffers.set_instance("fake");
    *buffers.mutable_buffers() = client().GetBuffers()->header.buffers();
    auto taped = client().Forward(TapedForwardOf(4), std::string(kBytes, '\0'));
    v1::BackwardHeader backward = BackwardOf(taped->header.tape_id(), 4);
    backward.set_accumulate(true);
    uploads_ = {
        {"Forward", Message(training), kBytes},
        {"Backward", Message(backward), kBytes},
        {"SetParams", Message(SetParamsOf(kElements)), kBytes},
        {"SetGrads", Message(grads), kBytes},
        {"SetBuffers", Message(buffers), 2 * 4 * 4 + 8},
    };
    before_ = Everything();
  }

  PlainClient client() { return PlainClient(server_); }

  // Returns all that a call could have changed.
  std::string Everything() {
    v1::GetInstanceRequest request;
    request.set_digest(true);
    v1::Instance instance = client().GetInstance(request)->instance();
    instance.clear_idle();
    v1::GetGradsRequest grads;
    grads.set_allow_absent(true);
    return absl::StrCat(instance.DebugString(),
                        client().GetGrads(grads)->bytes);
  }

  // Expects that nothing has changed or leaked, and that the next call works.
  void ExpectUnchanged() {
    EXPECT_EQ(server_.in_flight_bytes(), 0);
    EXPECT_EQ(server_.tape_count(), 1);
    EXPECT_EQ(Everything(), before_);
  }

  // Sends `messages` and expects that they are refused as malformed.
  void ExpectMalformed(const std::string& method,
                       const std::vector<std::string>& messages,
                       const ::testing::Matcher<const std::string&>& message) {
    RawCall call(server_.channel(), method);
    for (const std::string& sent : messages) {
      if (!call.Send(sent)) break;
    }
    EXPECT_THAT(call.End(),
                FailsWith(absl::StatusCode::kInvalidArgument,
                          v1::ERROR_REASON_MALFORMED_STREAM, message))
        << method;
    EXPECT_EQ(server_.in_flight_bytes(), 0);
  }

  TestServer server_;
  std::vector<Upload> uploads_;
  std::string before_;
};

// R1
TEST_F(UploadsTest, AStreamThatEndsEarlyChangesNothing) {
  constexpr int64_t kChunk = 16;
  for (const Upload& upload : uploads_) {
    for (int64_t sent = 0; sent < upload.bytes; sent += kChunk) {
      std::vector<std::string> messages = {upload.header};
      for (int64_t offset = 0; offset < sent; offset += kChunk) {
        messages.push_back(Message(offset, Zeros(kChunk)));
      }
      ExpectMalformed(
          upload.method, messages,
          HasSubstr(absl::StrCat("stream ended at byte ", sent, ", expected ",
                                 upload.bytes, " bytes")));
    }
  }
  ExpectUnchanged();
}

// R1
TEST_F(UploadsTest, AStreamCutAtAnyByteChangesNothing) {
  std::minstd_rand random(1);
  for (const Upload& upload : uploads_) {
    for (int i = 0; i < 8; ++i) {
      const auto sent =
          static_cast<int64_t>(random() % static_cast<uint64_t>(upload.bytes));
      ExpectMalformed(upload.method, {upload.header + Message(0, Zeros(sent))},
                      HasSubstr(absl::StrCat("stream ended at byte ", sent)));
    }
  }
  ExpectUnchanged();
}

// R1
TEST_F(UploadsTest, AMessageCutAtAnyByteChangesNothing) {
  std::minstd_rand random(2);
  for (const Upload& upload : uploads_) {
    const std::string whole = Message(0, Zeros(upload.bytes));
    for (int i = 0; i < 8; ++i) {
      const size_t size = 1 + random() % (whole.size() - 1);
      ExpectMalformed(upload.method, {upload.header, whole.substr(0, size)},
                      HasSubstr("cannot decode the message at byte"));
    }
  }
  ExpectUnchanged();
}

// R1
TEST_F(UploadsTest, AClientThatGoesAwayChangesNothing) {
  constexpr int64_t kChunk = 16;
  for (const Upload& upload : uploads_) {
    // Even after the last byte: the client did not half-close.
    for (int64_t sent = 0; sent <= upload.bytes; sent += kChunk) {
      RawCall call(server_.channel(), upload.method);
      EXPECT_TRUE(call.Send(upload.header));
      for (int64_t offset = 0; offset < sent; offset += kChunk) {
        call.Send(
            Message(offset, Zeros(std::min(kChunk, upload.bytes - offset))));
      }
      call.Cancel();
    }
  }
  server_.Settle();
  ExpectUnchanged();
}

TEST_F(UploadsTest, WhatIsWholeIsApplied) {
  for (const Upload& upload : uploads_) {
    RawCall call(server_.channel(), upload.method);
    EXPECT_TRUE(call.Send(upload.header));
    EXPECT_TRUE(call.Send(Message(0, Zeros(upload.bytes))));
    EXPECT_THAT(call.End(), IsOk()) << upload.method;
  }
  const auto instance = client().GetInstance()->instance();
  EXPECT_EQ(instance.version().params(), 2U);
  EXPECT_EQ(instance.version().buffers(), 3U);
  EXPECT_EQ(server_.tape_count(), 1);  // One is used, one was made.
}

TEST_F(UploadsTest, RefusesStreamsWithoutAHeader) {
  for (const Upload& upload : uploads_) {
    ExpectMalformed(upload.method, {}, HasSubstr("ended before its header"));
    ExpectMalformed(upload.method, {""}, HasSubstr("has no header"));
    ExpectMalformed(upload.method, {Message(0, Zeros(upload.bytes))},
                    HasSubstr("has no header"));
  }
  ExpectUnchanged();
}

// R11: each would hold its call as long as the stream lasts.
TEST_F(UploadsTest, RefusesMessagesWithoutAChunk) {
  for (const Upload& upload : uploads_) {
    ExpectMalformed(upload.method, {upload.header, ""},
                    HasSubstr("neither header nor chunk"));
  }
  ExpectUnchanged();
  v1::SetParamsHeader params = SetParamsOf(16);
  params.set_request_id("params-1");
  EXPECT_THAT(client().SetParams(params, Zeros(64)), IsOk());
  ExpectMalformed("SetParams", {Message(params), ""},
                  HasSubstr("neither header nor chunk"));
}

TEST_F(UploadsTest, RefusesASecondHeader) {
  for (const Upload& upload : uploads_) {
    ExpectMalformed(upload.method,
                    {upload.header, Message(0, Zeros(16)), upload.header},
                    HasSubstr("second header"));
  }
  ExpectUnchanged();
}

// R12
TEST_F(UploadsTest, RefusesUndecodableBytes) {
  for (const Upload& upload : uploads_) {
    ExpectMalformed(upload.method, {"\xff\xff\xff"},
                    HasSubstr("cannot decode the message at byte"));
    ExpectMalformed(upload.method, {upload.header, "\x07"},
                    HasSubstr("cannot decode the message at byte 0"));
    ExpectMalformed(upload.method, {std::string("\x0a\x02\x0a\x09", 4)},
                    HasSubstr("cannot decode the header at byte 2"));
  }
  ExpectUnchanged();
}

TEST_F(UploadsTest, RefusesMisplacedChunks) {
  for (const Upload& upload : uploads_) {
    const std::string first = upload.header + Message(0, Zeros(16));
    const auto expect = [&](int64_t offset, int64_t bytes,
                            const std::string& message) {
      ExpectMalformed(upload.method, {first, Message(offset, Zeros(bytes))},
                      HasSubstr(message));
    };
    expect(20, 4, "chunk starts at byte 20, expected byte 16");
    expect(12, 4, "chunk starts at byte 12, expected byte 16");
    expect(-1, 4, "chunk starts at byte -1, expected byte 16");
    expect(std::numeric_limits<int64_t>::max(), 4, "expected byte 16");
    expect(16, upload.bytes,
           absl::StrCat("chunk ends at byte ", upload.bytes + 16,
                        ", the tensors end at byte ", upload.bytes));
    ExpectMalformed(
        upload.method,
        {upload.header + Message(0, Zeros(upload.bytes)),
         Message(upload.bytes, Zeros(1))},
        HasSubstr(absl::StrCat("chunk ends at byte ", upload.bytes + 1)));
  }
  ExpectUnchanged();
}

TEST_F(UploadsTest, RefusesChunksOverTwoMebibytes) {
  for (const Upload& upload : uploads_) {
    ExpectMalformed(upload.method,
                    {upload.header, Message(0, Zeros((2 << 20) + 1))},
                    HasSubstr("chunk has 2097153 bytes, at most 2097152"));
  }
  ExpectUnchanged();
}

// gRPC itself ends the call.
TEST_F(UploadsTest, RefusesMessagesOverFourMebibytes) {
  for (const Upload& upload : uploads_) {
    RawCall call(server_.channel(), upload.method);
    call.Send(upload.header);
    call.Send(Message(0, Zeros(5 << 20)));
    EXPECT_FALSE(call.End().ok()) << upload.method;
  }
  server_.Settle();
  ExpectUnchanged();
}

// R12, R5
TEST_F(UploadsTest, RefusesHugeShapesBeforeAnythingIsAllocated) {
  const auto status_of = [&](const std::string& method,
                             const google::protobuf::MessageLite& header) {
    RawCall call(server_.channel(), method);
    call.Send(Message(header));
    return call.End();
  };
  for (const int64_t rows : {int64_t{1} << 40, int64_t{1} << 58}) {
    EXPECT_THAT(status_of("Forward", ForwardOf(rows)),
                RefusedBy("max-in-flight-bytes", Limits().max_in_flight_bytes));
  }
  v1::SetGradsHeader grads;
  grads.set_instance("fake");
  const auto huge = [](v1::TensorSpec& spec) {
    spec.clear_shape();
    for (int i = 0; i < 3; ++i) spec.add_shape(int64_t{1} << 40);
  };
  const auto invalid =
      FailsWith(absl::StatusCode::kInvalidArgument,
                v1::ERROR_REASON_SHAPE_MISMATCH, HasSubstr("1099511627776"));
  v1::SetParamsHeader params = SetParamsOf(1);
  huge(*params.mutable_spec());
  EXPECT_THAT(status_of("SetParams", params), invalid);
  *grads.mutable_grads()->mutable_spec() = params.spec();
  EXPECT_THAT(status_of("SetGrads", grads), invalid);
  EXPECT_THAT(
      status_of("Forward", ForwardOf(int64_t{1} << 62)),
      FailsWith(absl::StatusCode::kInvalidArgument,
                v1::ERROR_REASON_SHAPE_MISMATCH, HasSubstr("too large")));
  EXPECT_THAT(
      status_of("Forward", ForwardOf(-1)),
      FailsWith(absl::StatusCode::kInvalidArgument,
                v1::ERROR_REASON_SHAPE_MISMATCH, HasSubstr("negative size")));

  // Sizes whose sum passes 64 bits.
  v1::BackwardHeader backward;
  ASSERT_TRUE(backward.ParseFromString(uploads_[1].header.substr(2)));
  auto& gradients = *backward.mutable_tapes(0)->mutable_gradients();
  gradients.at(0).set_shape(0, int64_t{1} << 58);
  const auto too_large =
      FailsWith(absl::StatusCode::kInvalidArgument,
                v1::ERROR_REASON_SHAPE_MISMATCH, HasSubstr("expected [4, 4]"));
  EXPECT_THAT(status_of("Backward", backward), too_large);
  const auto second = client().Forward(TapedForwardOf(4), Zeros(kBytes));
  *backward.add_tapes() = backward.tapes(0);
  backward.mutable_tapes(1)->set_tape_id(second->header.tape_id());
  EXPECT_THAT(status_of("Backward", backward), too_large);
  v1::ReleaseTapesRequest release;
  release.add_tape_ids(second->header.tape_id());
  EXPECT_EQ(client().ReleaseTapes(release)->released_count(), 1);
  EXPECT_EQ(server_.in_flight_bytes(), 0);
  EXPECT_EQ(server_.tape_count(), 1);
}

// R1
TEST(LargeUploadsTest, ALargeStreamCutAtEveryChunkChangesNothing) {
  constexpr int64_t kMegabyte = 1 << 20;
  TestServer server({.size = kMegabyte / 4});  // Four parameters of 1 MiB.
  PlainClient client(server);
  const std::string before = client.GetParams()->bytes;
  for (int64_t cut = 0; cut < 4; ++cut) {
    for (const bool cancel : {false, true}) {
      RawCall call(server.channel(), "SetParams");
      call.Send(Message(SetParamsOf(kMegabyte)));
      for (int64_t chunk = 0; chunk < cut; ++chunk) {
        EXPECT_TRUE(call.Send(
            Message(chunk * kMegabyte, std::string(kMegabyte, '\x01'))));
      }
      if (cancel) call.Cancel();
      EXPECT_FALSE(call.End().ok());
    }
  }
  server.Settle();
  const auto after = PlainClient(server).GetParams();
  EXPECT_EQ(after->header.version().params(), 1U);
  EXPECT_EQ(after->bytes, before);
  EXPECT_EQ(server.in_flight_bytes(), 0);
}

}  // namespace
}  // namespace backboned
