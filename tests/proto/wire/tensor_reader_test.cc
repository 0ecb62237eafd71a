#include "proto/wire/tensor_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "backboned/v1/backbone_service.pb.h"
#include "tests/proto/wire/buffers.h"
#include "tests/testing/status_matchers.h"

namespace backboned::wire {
namespace {

using ::absl::StatusCode;

Message ChunkAt(int64_t offset, const std::string& data) {
  v1::ForwardRequest request;
  request.mutable_chunk()->set_offset(offset);
  request.mutable_chunk()->set_data(data);
  return Message::Decode(BufferOf(request.SerializeAsString(), 3)).value();
}

TEST(TensorReaderTest, PlacesChunksOneAfterTheOther) {
  std::string tensor(8, '.');
  TensorReader reader({AsWritableBytes(tensor)});
  EXPECT_THAT(reader.Accept(ChunkAt(0, "abc")), IsOk());
  EXPECT_EQ(tensor, "abc.....");
  EXPECT_THAT(reader.Accept(ChunkAt(3, "defgh")), IsOk());
  EXPECT_EQ(tensor, "abcdefgh");
  EXPECT_THAT(reader.Finish(), IsOk());
}

TEST(TensorReaderTest, SpreadsAChunkOverSeveralTensors) {
  std::string first(3, '.'), second(1, '.'), third(4, '.');
  TensorReader reader({AsWritableBytes(first),
                       {},
                       AsWritableBytes(second),
                       {},
                       AsWritableBytes(third),
                       {}});
  EXPECT_THAT(reader.Accept(ChunkAt(0, "ab")), IsOk());
  EXPECT_THAT(reader.Accept(ChunkAt(2, "cdefgh")), IsOk());
  EXPECT_THAT(reader.Finish(), IsOk());
  EXPECT_EQ(first + "|" + second + "|" + third, "abc|d|efgh");
}

TEST(TensorReaderTest, IgnoresMessagesWithoutAChunk) {
  TensorReader reader({});
  EXPECT_THAT(reader.Accept(Message::Decode(BufferOf("")).value()), IsOk());
  EXPECT_THAT(reader.Finish(), IsOk());
}

TEST(TensorReaderTest, TakesEmptyChunksInPlace) {
  std::string tensor(2, '.');
  TensorReader reader({AsWritableBytes(tensor)});
  EXPECT_THAT(reader.Accept(ChunkAt(0, "")), IsOk());
  EXPECT_THAT(reader.Accept(ChunkAt(0, "ab")), IsOk());
  EXPECT_THAT(reader.Accept(ChunkAt(2, "")), IsOk());
  EXPECT_THAT(reader.Finish(), IsOk());
}

TEST(TensorReaderTest, RejectsEmptyChunkElsewhere) {
  TensorReader reader({});
  EXPECT_THAT(reader.Accept(ChunkAt(5, "")),
              StatusIs(StatusCode::kInvalidArgument,
                       "chunk starts at byte 5, expected byte 0"));
}

TEST(TensorReaderTest, HasNothingToReceiveForEmptyTensors) {
  TensorReader reader({{}, {}});
  EXPECT_THAT(reader.Finish(), IsOk());
}

TEST(TensorReaderTest, RejectsGapBetweenChunks) {
  std::string tensor(32, '.');
  TensorReader reader({AsWritableBytes(tensor)});
  EXPECT_THAT(reader.Accept(ChunkAt(0, Pattern(16))), IsOk());
  EXPECT_THAT(reader.Accept(ChunkAt(20, "abcd")),
              StatusIs(StatusCode::kInvalidArgument,
                       "chunk starts at byte 20, expected byte 16"));
}

TEST(TensorReaderTest, RejectsOverlapOfChunks) {
  std::string tensor(32, '.');
  TensorReader reader({AsWritableBytes(tensor)});
  EXPECT_THAT(reader.Accept(ChunkAt(0, Pattern(16))), IsOk());
  EXPECT_THAT(reader.Accept(ChunkAt(15, "abcd")),
              StatusIs(StatusCode::kInvalidArgument,
                       "chunk starts at byte 15, expected byte 16"));
}

TEST(TensorReaderTest, RejectsNegativeOffset) {
  std::string tensor(4, '.');
  TensorReader reader({AsWritableBytes(tensor)});
  EXPECT_THAT(reader.Accept(ChunkAt(-1, "abcd")),
              StatusIs(StatusCode::kInvalidArgument,
                       "chunk starts at byte -1, expected byte 0"));
}

TEST(TensorReaderTest, RejectsBytesPastTheEnd) {
  std::string tensor(32, '.');
  TensorReader reader({AsWritableBytes(tensor)});
  EXPECT_THAT(reader.Accept(ChunkAt(0, Pattern(30))), IsOk());
  EXPECT_THAT(reader.Accept(ChunkAt(30, Pattern(10))),
              StatusIs(StatusCode::kInvalidArgument,
                       "chunk ends at byte 40, the tensors end at byte 32"));
}

TEST(TensorReaderTest, PlacesNothingOfARejectedChunk) {
  std::string tensor(4, '.');
  TensorReader reader({AsWritableBytes(tensor)});
  EXPECT_THAT(reader.Accept(ChunkAt(0, "abcde")),
              StatusIs(StatusCode::kInvalidArgument));
  EXPECT_EQ(tensor, "....");
}

TEST(TensorReaderTest, NoticesMissingBytes) {
  std::string tensor(32, '.');
  TensorReader reader({AsWritableBytes(tensor)});
  EXPECT_THAT(reader.Accept(ChunkAt(0, Pattern(12))), IsOk());
  EXPECT_THAT(reader.Finish(),
              StatusIs(StatusCode::kInvalidArgument,
                       "stream ended at byte 12, expected 32 bytes"));
}

}  // namespace
}  // namespace backboned::wire
