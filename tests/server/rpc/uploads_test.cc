// Streams that a careful client would not send: nothing has changed after them.
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
#include "tests/server/rpc/plain_client.h"

namespace backboned {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int64_t kSize = 4;
constexpr int64_t kElements = 4 * kSize;
constexpr int64_t kBytes = kElements * 4;

// A method that takes a stream, its header, and how many bytes it announces.
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
        {"SetBuffers", Message(buffers), 2 * kSize * 4 + 8},
    };
    before_ = Everything();
  }

  PlainClient client() { return PlainClient(server_); }

  // All that a call could have changed.
  std::string Everything() {
    v1::GetInstanceRequest request;
    request.set_digest(true);
    v1::Instance instance = client().GetInstance(request)->instance();
    v1::GetGradsRequest grads;
    grads.set_allow_absent(true);
    return absl::StrCat(instance.DebugString(),
                        client().GetGrads(grads)->bytes);
  }

  // Nothing has changed, nothing leaked, and the next call works.
  void ExpectUnchanged() {
    EXPECT_EQ(server_.in_flight_bytes(), 0);
    EXPECT_EQ(server_.tape_count(), 1);
    EXPECT_EQ(Everything(), before_);
  }

  // Sends `messages` and expects that it is refused as malformed.
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

std::string Zeros(int64_t bytes) {
  return std::string(static_cast<size_t>(bytes), '\0');
}

// R1
TEST_F(UploadsTest, AStreamThatEndsEarlyChangesNothing) {
  constexpr int64_t kChunk = 16;
  for (const Upload& upload : uploads_) {
    for (int64_t sent = 0; sent < upload.bytes; sent += kChunk) {
      std::vector<std::string> messages = {upload.header};
      for (int64_t offset = 0; offset < sent; offset += kChunk) {
        messages.push_back(Message(offset, Zeros(kChunk)));
      }
      ExpectMalformed(upload.method, messages,
                      HasSubstr(absl::StrCat("stream ended at byte ", sent,
                                             " of ", upload.bytes)));
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
    // Also after the last byte: it did not half-close.
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
                RefusedBy("max-in-flight-bytes", int64_t{1} << 30));
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
  const auto too_large = FailsWith(absl::StatusCode::kInvalidArgument,
                                   v1::ERROR_REASON_SHAPE_MISMATCH,
                                   HasSubstr("the output [4, 4]"));
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

TEST_F(UploadsTest, RefusesOtherShapesWithBoth) {
  const auto mismatch = [](const std::string& message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_SHAPE_MISMATCH, HasSubstr(message));
  };
  EXPECT_THAT(client().Forward(ForwardOf(2, 5), Zeros(40)),
              mismatch("shape [2, 5], expected [N, 4]"));
  EXPECT_THAT(client().SetParams(SetParamsOf(15), Zeros(60)),
              mismatch("shape [15], expected [16]"));
  v1::BackwardHeader backward;
  ASSERT_TRUE(backward.ParseFromString(uploads_[1].header.substr(2)));
  backward.mutable_tapes(0)->mutable_gradients(0)->set_shape(0, 3);
  EXPECT_THAT(client().Backward(backward, Zeros(48)),
              mismatch("'out' has shape [3, 4], the output [4, 4]"));
  ExpectUnchanged();
}

TEST_F(UploadsTest, RefusesOtherElementTypes) {
  const auto mismatch = [](const std::string& message) {
    return FailsWith(absl::StatusCode::kInvalidArgument,
                     v1::ERROR_REASON_DTYPE_MISMATCH, HasSubstr(message));
  };
  v1::ForwardHeader forward = ForwardOf(2);
  forward.mutable_inputs(0)->set_dtype(v1::DATA_TYPE_INT64);
  EXPECT_THAT(client().Forward(forward, Zeros(64)),
              mismatch("int64, expected float32 or uint8"));
  v1::SetParamsHeader params = SetParamsOf(kElements);
  params.mutable_spec()->set_dtype(v1::DATA_TYPE_FLOAT64);
  EXPECT_THAT(client().SetParams(params, Zeros(128)),
              mismatch("float64, expected float32"));
  v1::BackwardHeader backward;
  ASSERT_TRUE(backward.ParseFromString(uploads_[1].header.substr(2)));
  backward.mutable_tapes(0)->mutable_gradients(0)->set_dtype(
      v1::DATA_TYPE_FLOAT16);
  EXPECT_THAT(client().Backward(backward, Zeros(32)),
              mismatch("float16, expected float32"));
  ExpectUnchanged();
}

TEST_F(UploadsTest, RefusesForwardsThatMakeNoSense) {
  const auto expect_invalid = [&](const v1::ForwardHeader& header,
                                  const std::string& message) {
    EXPECT_THAT(client().Forward(header, Zeros(32)),
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
  expect_invalid(header, "must take all 4");
  header = ForwardOf(2);
  header.set_request_id("not a token");
  expect_invalid(header, "request_id");
  ExpectUnchanged();
}

TEST_F(UploadsTest, RefusesBackwardsThatMakeNoSense) {
  v1::BackwardHeader valid;
  ASSERT_TRUE(valid.ParseFromString(uploads_[1].header.substr(2)));
  const auto expect_invalid = [&](const v1::BackwardHeader& header,
                                  const std::string& message) {
    EXPECT_THAT(client().Backward(header, Zeros(kBytes)),
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
  expect_invalid(header, "two gradients of 'out'");
  header = valid;
  header.mutable_tapes(0)->mutable_gradients(0)->set_name("features");
  expect_invalid(header, "no output \"features\"");
  // A long name is cut between two characters, or nobody could decode it.
  std::string name = "x";
  for (int i = 0; i < 40; ++i) name += "\xc3\xa4";
  header.mutable_tapes(0)->mutable_gradients(0)->set_name(name);
  expect_invalid(header, "no output \"x\xc3\xa4");
  header = valid;
  header.mutable_tapes(0)->set_tape_id("unknown");
  EXPECT_THAT(client().Backward(header, Zeros(kBytes)),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_TAPE_NOT_FOUND, HasSubstr("unknown")));
  ExpectUnchanged();
}

TEST_F(UploadsTest, ATapeBelongsToItsInstance) {
  server_.AddFake("sibling");
  v1::BackwardHeader header;
  ASSERT_TRUE(header.ParseFromString(uploads_[1].header.substr(2)));
  header.set_instance("sibling");
  EXPECT_THAT(client().Backward(header, Zeros(kBytes)),
              FailsWith(absl::StatusCode::kFailedPrecondition,
                        v1::ERROR_REASON_TAPE_NOT_FOUND,
                        HasSubstr("of another instance")));
  ExpectUnchanged();
}

TEST_F(UploadsTest, RefusesStaleVersions) {
  const auto stale = [](const std::string& message) {
    return FailsWith(absl::StatusCode::kAborted, v1::ERROR_REASON_STALE_VERSION,
                     HasSubstr(message));
  };
  v1::SetParamsHeader params = SetParamsOf(kElements);
  params.mutable_if_version()->set_params(7);
  EXPECT_THAT(client().SetParams(params, Zeros(kBytes)),
              stale("version 1, not 7"));
  for (const bool training : {false, true}) {
    v1::ForwardHeader forward = TapedForwardOf(2);
    forward.set_training(training);
    forward.mutable_if_version()->set_buffers(7);
    EXPECT_THAT(client().Forward(forward, Zeros(32)),
                stale("version 1, not 7"));
  }
  v1::GetParamsRequest get;
  get.mutable_if_version()->set_uid("other");
  EXPECT_THAT(client().GetParams(get), stale("not other"));
  v1::SetGradsHeader grads;
  grads.mutable_if_version()->set_params(2);
  *grads.mutable_grads()->mutable_spec() = FloatSpec({kElements});
  EXPECT_THAT(client().SetGrads(grads, Zeros(kBytes)),
              stale("version 1, not 2"));
  ExpectUnchanged();
}

// Images whose channels the instance's normalization does not fit.
TEST_F(UploadsTest, RefusesImagesThatCannotBeNormalized) {
  v1::CreateInstanceRequest create;
  create.set_name("mlp");
  create.set_architecture("mnistmlp");
  (*create.mutable_arguments())["num_classes"].set_int_value(2);
  create.mutable_normalization()->add_mean(0.5);
  create.mutable_normalization()->add_std(0.5);
  ASSERT_THAT(client().CreateInstance(create), IsOk());
  v1::ForwardHeader header = ForwardOf(1, 784);
  header.set_instance("mlp");
  EXPECT_THAT(client().Forward(header, Zeros(4 * 784)), IsOk());
  header.mutable_inputs(0)->set_dtype(v1::DATA_TYPE_UINT8);
  EXPECT_THAT(
      client().Forward(header, Zeros(784)),
      FailsWith(absl::StatusCode::kInvalidArgument,
                v1::ERROR_REASON_SHAPE_MISMATCH, HasSubstr("[1, 784]")));
  *header.mutable_inputs(0) = FloatSpec({1, 1, 28, 28});
  header.mutable_inputs(0)->set_dtype(v1::DATA_TYPE_UINT8);
  EXPECT_THAT(client().Forward(header, Zeros(784)), IsOk());
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
