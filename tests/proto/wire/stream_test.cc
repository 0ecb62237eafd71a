// Tests writer and reader with streams that are cut or damaged on the way.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backboned/v1/backbone_service.pb.h"
#include "proto/wire/message.h"
#include "proto/wire/tensor_reader.h"
#include "proto/wire/tensor_writer.h"
#include "tests/proto/wire/buffers.h"
#include "tests/testing/status_matchers.h"

namespace backboned::wire {
namespace {

using ::absl::StatusCode;

constexpr size_t kTotalBytes = 100;
constexpr int64_t kSmallChunkBytes = 32;

// Returns the messages of a stream of two tensors.
std::vector<std::string> Stream(const std::string& bytes) {
  v1::SetParamsHeader header;
  header.set_instance("net");
  TensorWriter writer(
      header, {{AsBytes(bytes).first(40)}, {AsBytes(bytes).subspan(40)}},
      kSmallChunkBytes);
  std::vector<std::string> messages;
  while (std::optional<grpc::ByteBuffer> message = writer.Next()) {
    messages.push_back(BytesOf(*message));
  }
  return messages;
}

// Returns a receiver's status for these messages.
absl::Status Receive(const std::vector<std::string>& messages,
                     std::string& first, std::string& second) {
  TensorReader reader({AsWritableBytes(first), AsWritableBytes(second)});
  for (const std::string& bytes : messages) {
    const absl::StatusOr<Message> message = Message::Decode(BufferOf(bytes, 7));
    if (!message.ok()) return message.status();
    absl::Status accepted = reader.Accept(*message);
    if (!accepted.ok()) return accepted;
  }
  return reader.Finish();
}

absl::Status Receive(const std::vector<std::string>& messages) {
  std::string first(40, '.'), second(60, '.');
  return Receive(messages, first, second);
}

// Returns `messages` up to byte `cut` of all their bytes.
std::vector<std::string> CutAt(const std::vector<std::string>& messages,
                               size_t cut) {
  std::vector<std::string> kept;
  for (const std::string& message : messages) {
    if (cut == 0) break;
    kept.push_back(message.substr(0, cut));
    cut -= kept.back().size();
  }
  return kept;
}

TEST(StreamTest, ArrivesAsItWasSent) {
  const std::string bytes = Pattern(kTotalBytes);
  std::string first(40, '.'), second(60, '.');
  EXPECT_THAT(Receive(Stream(bytes), first, second), IsOk());
  EXPECT_EQ(first + second, bytes);
}

TEST(StreamTest, NamesTheByteWhereverItIsCut) {
  const std::vector<std::string> messages = Stream(Pattern(kTotalBytes));
  const size_t header_bytes = 2 + 5;  // Cut here, a message is complete.
  size_t begin = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    for (size_t cut = 0; cut < messages[i].size(); ++cut) {
      const bool whole = cut == 0 || (i == 0 && cut == header_bytes);
      const std::string expected =
          whole ? absl::StrCat("stream ended at byte ", i * kSmallChunkBytes,
                               ", expected ", kTotalBytes, " bytes")
                : absl::StrCat("cannot decode the message at byte ", cut);
      EXPECT_THAT(Receive(CutAt(messages, begin + cut)),
                  StatusIs(StatusCode::kInvalidArgument, expected));
    }
    begin += messages[i].size();
  }
}

TEST(StreamTest, NoticesALostMessage) {
  std::vector<std::string> messages = Stream(Pattern(kTotalBytes));
  messages.erase(messages.begin() + 1);
  EXPECT_THAT(Receive(messages),
              StatusIs(StatusCode::kInvalidArgument,
                       "chunk starts at byte 64, expected byte 32"));
}

TEST(StreamTest, NoticesARepeatedMessage) {
  std::vector<std::string> messages = Stream(Pattern(kTotalBytes));
  messages.insert(messages.begin() + 1, messages[1]);
  EXPECT_THAT(Receive(messages),
              StatusIs(StatusCode::kInvalidArgument,
                       "chunk starts at byte 32, expected byte 64"));
}

TEST(StreamTest, NoticesSwappedMessages) {
  std::vector<std::string> messages = Stream(Pattern(kTotalBytes));
  std::swap(messages[1], messages[2]);
  EXPECT_THAT(Receive(messages),
              StatusIs(StatusCode::kInvalidArgument,
                       "chunk starts at byte 64, expected byte 32"));
}

TEST(StreamTest, NoticesBytesBehindTheEnd) {
  std::vector<std::string> messages = Stream(Pattern(kTotalBytes));
  v1::SetParamsRequest request;
  request.mutable_chunk()->set_offset(kTotalBytes);
  request.mutable_chunk()->set_data("x");
  messages.push_back(request.SerializeAsString());
  EXPECT_THAT(Receive(messages),
              StatusIs(StatusCode::kInvalidArgument,
                       "chunk ends at byte 101, the tensors end at byte 100"));
}

}  // namespace
}  // namespace backboned::wire
