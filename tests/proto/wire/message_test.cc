#include "proto/wire/message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backboned/v1/backbone_service.pb.h"
#include "tests/proto/wire/buffers.h"
#include "tests/testing/status_matchers.h"

namespace backboned::wire {
namespace {

using ::absl::StatusCode;
using ::testing::HasSubstr;
using ::testing::SizeIs;

v1::SetParamsRequest Example() {
  v1::SetParamsRequest request;
  request.mutable_header()->set_instance("net");
  request.mutable_header()->mutable_spec()->add_shape(4);
  request.mutable_chunk()->set_offset(300);
  request.mutable_chunk()->set_data("0123456789abcdef");
  return request;
}

// Returns field 2 with `fields` in it.
std::string ChunkOf(const std::string& fields) {
  return absl::StrCat("\x12", std::string(1, static_cast<char>(fields.size())),
                      fields);
}

Message DecodeOrDie(const std::string& bytes, size_t slice_bytes = 8192) {
  return Message::Decode(BufferOf(bytes, slice_bytes)).value();
}

TEST(MessageTest, DecodesHeaderAndChunk) {
  const v1::SetParamsRequest request = Example();
  const Message message = DecodeOrDie(request.SerializeAsString());

  v1::SetParamsHeader header;
  ASSERT_TRUE(message.has_header());
  ASSERT_THAT(message.ParseHeader(header), IsOk());
  EXPECT_EQ(header.SerializeAsString(), request.header().SerializeAsString());
  ASSERT_TRUE(message.has_chunk());
  EXPECT_EQ(message.chunk_offset(), 300);
  EXPECT_EQ(message.chunk_bytes(), 16);
  EXPECT_EQ(DataOf(message), "0123456789abcdef");
}

TEST(MessageTest, DecodesWhateverTheSlicesAre) {
  const std::string bytes = Example().SerializeAsString();
  for (size_t slice_bytes = 1; slice_bytes <= bytes.size(); ++slice_bytes) {
    const Message message = DecodeOrDie(bytes, slice_bytes);
    v1::SetParamsHeader header;
    EXPECT_THAT(message.ParseHeader(header), IsOk());
    EXPECT_EQ(header.instance(), "net");
    EXPECT_EQ(DataOf(message), "0123456789abcdef");
  }
}

TEST(MessageTest, DecodesEmptyMessages) {
  for (const grpc::ByteBuffer& buffer :
       {grpc::ByteBuffer(), BufferOf(""), BufferOf("", 1)}) {
    const absl::StatusOr<Message> message = Message::Decode(buffer);
    ASSERT_THAT(message, IsOk());
    EXPECT_FALSE(message->has_header());
    EXPECT_FALSE(message->has_chunk());
    EXPECT_EQ(message->chunk_offset(), 0);
    EXPECT_EQ(message->chunk_bytes(), 0);
    EXPECT_THAT(message->chunk_parts(), SizeIs(0));
  }
}

TEST(MessageTest, TellsAnEmptyHeaderFromNone) {
  const Message message = DecodeOrDie(std::string("\x0A\x00", 2));
  EXPECT_TRUE(message.has_header());
  EXPECT_FALSE(message.has_chunk());
}

TEST(MessageTest, ClearsTheHeaderIfThereIsNone) {
  v1::SetParamsHeader header;
  header.set_instance("old");
  EXPECT_THAT(DecodeOrDie("").ParseHeader(header), IsOk());
  EXPECT_EQ(header.instance(), "");
}

TEST(MessageTest, TakesDataBeforeOffset) {
  const Message message =
      DecodeOrDie(ChunkOf("\x12\x03"
                          "abc"
                          "\x08\x05"));
  EXPECT_EQ(message.chunk_offset(), 5);
  EXPECT_EQ(DataOf(message), "abc");
}

TEST(MessageTest, TakesChunkBeforeHeader) {
  v1::SetParamsRequest chunk, header;
  chunk.mutable_chunk()->set_data("abc");
  header.mutable_header()->set_instance("net");
  const Message message =
      DecodeOrDie(chunk.SerializeAsString() + header.SerializeAsString());
  v1::SetParamsHeader parsed;
  EXPECT_THAT(message.ParseHeader(parsed), IsOk());
  EXPECT_EQ(parsed.instance(), "net");
  EXPECT_EQ(DataOf(message), "abc");
}

TEST(MessageTest, SkipsUnknownFields) {
  const std::string unknown =
      absl::StrCat("\x18\x96\x01",  // 3: varint
                   "\x21"
                   "12345678",  // 4: 8 bytes
                   "\x2A\x02"
                   "ab",                        // 5: length
                   "\x33\x08\x01\x3B\x3C\x34",  // 6: group with a group 7 in it
                   "\x3D"
                   "1234");  // 7: 4 bytes
  const std::string bytes = unknown + ChunkOf(unknown + "\x12\x01x" + unknown);
  for (const size_t slice_bytes : {1, 3, 8192}) {
    EXPECT_EQ(DataOf(DecodeOrDie(bytes, slice_bytes)), "x");
  }
}

TEST(MessageTest, MergesRepeatedOccurrences) {
  v1::SetParamsRequest first, second;
  first.mutable_header()->set_instance("a");
  first.mutable_header()->mutable_spec()->add_shape(1);
  first.mutable_chunk()->set_offset(7);
  first.mutable_chunk()->set_data("first");
  second.mutable_header()->set_instance("b");
  second.mutable_header()->mutable_spec()->add_shape(2);
  second.mutable_chunk()->set_data("2nd");
  const Message message =
      DecodeOrDie(first.SerializeAsString() + second.SerializeAsString());

  first.MergeFrom(second);
  v1::SetParamsHeader header;
  ASSERT_THAT(message.ParseHeader(header), IsOk());
  EXPECT_EQ(header.SerializeAsString(), first.header().SerializeAsString());
  EXPECT_EQ(message.chunk_offset(), 7);
  EXPECT_EQ(DataOf(message), "2nd");
}

TEST(MessageTest, NamesTheEndOfATruncatedMessage) {
  const v1::SetParamsRequest request = Example();
  const std::string bytes = request.SerializeAsString();
  const size_t header_end = 2 + request.header().ByteSizeLong();
  for (size_t length = 1; length < bytes.size(); ++length) {
    if (length == header_end) continue;  // A whole message.
    EXPECT_THAT(
        Message::Decode(BufferOf(bytes.substr(0, length), 5)),
        StatusIs(StatusCode::kInvalidArgument,
                 absl::StrCat("cannot decode the message at byte ", length)));
  }
}

TEST(MessageTest, NamesTheByteThatCannotBeDecoded) {
  const struct {
    std::string bytes;
    int byte;
  } cases[] = {
      {ChunkOf("\x08\x01\x16"
               "abcd"),
       4},  // Wire type 6.
      {ChunkOf("\x12\x05"
               "abc"),
       7},                                              // Data past its chunk.
      {"\x18\x01" + std::string(1, '\0') + "\x01", 2},  // Field number 0.
      {"\x18\x01\x0C", 2},                              // End of no group.
      {"\x1B\x08\x01\x24", 3},                          // End of another one.
      {"\x1B\x08\x01", 3},                              // Group without end.
      {"\x18" + std::string(11, '\xFF'), 10},           // Varint of 11 bytes.
      {"\xFF\xFF\xFF\xFF\xFF\x01", 4},                  // Tag of 6 bytes.
      {"\x1A\xFF\xFF\xFF\xFF\x07", 1},                  // Length of 2 GiB.
  };
  for (const auto& [bytes, byte] : cases) {
    EXPECT_THAT(
        Message::Decode(BufferOf(bytes, 2)),
        StatusIs(StatusCode::kInvalidArgument,
                 absl::StrCat("cannot decode the message at byte ", byte)));
  }
}

TEST(MessageTest, NamesTheHeaderThatCannotBeDecoded) {
  const Message message = DecodeOrDie("\x18\x01\x0A\x02\x0A\x05");
  v1::SetParamsHeader header;
  EXPECT_THAT(message.ParseHeader(header),
              StatusIs(StatusCode::kInvalidArgument,
                       "cannot decode the header at byte 4"));
}

TEST(MessageTest, ParsesEachOccurrenceOfTheHeaderByItself) {
  // Together they would be one string field.
  const Message message = DecodeOrDie(
      "\x0A\x02\x0A\x02\x0A\x02"
      "ab");
  v1::SetParamsHeader header;
  EXPECT_THAT(message.ParseHeader(header),
              StatusIs(StatusCode::kInvalidArgument));
}

TEST(MessageTest, AcceptsTheLargestChunk) {
  v1::SetParamsRequest request;
  request.mutable_chunk()->set_data(Pattern(kMaxChunkBytes));
  const Message message = DecodeOrDie(request.SerializeAsString(), 65536);
  EXPECT_EQ(message.chunk_bytes(), kMaxChunkBytes);
  EXPECT_EQ(DataOf(message), request.chunk().data());
}

TEST(MessageTest, RefusesALargerChunk) {
  v1::SetParamsRequest request;
  request.mutable_chunk()->set_data(Pattern(kMaxChunkBytes + 1));
  EXPECT_THAT(Message::Decode(BufferOf(request.SerializeAsString(), 65536)),
              StatusIs(StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("2097153"), HasSubstr("2097152"))));
}

TEST(MessageTest, LeavesThePayloadWhereItIs) {
  v1::SetParamsRequest request;
  request.mutable_chunk()->set_data(Pattern(100'000));
  const std::string bytes = request.SerializeAsString();
  grpc::Slice slice(bytes.data(), bytes.size(), grpc::Slice::STATIC_SLICE);
  const Message message = Message::Decode(grpc::ByteBuffer(&slice, 1)).value();
  ASSERT_THAT(message.chunk_parts(), SizeIs(1));
  EXPECT_EQ(message.chunk_parts()[0].data() + 100'000,
            AsBytes(bytes).data() + bytes.size());
}

TEST(MessageTest, KeepsShortSlicesInPlaceWhenMoved) {
  Message first = DecodeOrDie(ChunkOf("\x12\x04"
                                      "abcd"),
                              1);
  const auto moved = std::make_unique<Message>(std::move(first));
  first = DecodeOrDie("");
  EXPECT_EQ(DataOf(*moved), "abcd");
}

}  // namespace
}  // namespace backboned::wire
