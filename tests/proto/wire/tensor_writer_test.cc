#include "proto/wire/tensor_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backboned/v1/backbone_service.pb.h"
#include "tests/proto/wire/buffers.h"
#include "tests/testing/status_matchers.h"

namespace backboned::wire {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Drain(TensorWriter& writer) {
  std::vector<std::string> messages;
  while (std::optional<grpc::ByteBuffer> message = writer.Next()) {
    messages.push_back(BytesOf(*message));
  }
  return messages;
}

// Returns the messages of the stream, made by generated code.
std::vector<std::string> Generated(const std::string& bytes,
                                   size_t chunk_bytes) {
  std::vector<std::string> messages;
  for (size_t begin = 0; begin < bytes.size() || begin == 0;
       begin += chunk_bytes) {
    v1::SetParamsRequest request;
    if (begin == 0) *request.mutable_header() = Header();
    if (!bytes.empty()) {
      request.mutable_chunk()->set_offset(static_cast<int64_t>(begin));
      request.mutable_chunk()->set_data(bytes.substr(begin, chunk_bytes));
    }
    messages.push_back(request.SerializeAsString());
  }
  return messages;
}

// Bytes that record when they are released.
struct Owned {
  explicit Owned(size_t count)
      : bytes(std::make_shared<std::string>(Pattern(count))), alive(bytes) {}

  Payload Give() { return {AsBytes(*bytes), std::exchange(bytes, nullptr)}; }

  std::shared_ptr<std::string> bytes;
  std::weak_ptr<std::string> alive;
};

TEST(TensorWriterTest, WritesWhatGeneratedCodeWrites) {
  for (const size_t total : {0, 1, 15, 16, 17, 100, 16384, 50'000}) {
    for (const size_t chunk_bytes : {1, 16, 20'000, 1 << 20}) {
      if (total / chunk_bytes > 1000) continue;
      const std::string bytes = Pattern(total);
      TensorWriter writer(Header(), {{AsBytes(bytes)}},
                          static_cast<int64_t>(chunk_bytes));
      EXPECT_EQ(Drain(writer), Generated(bytes, chunk_bytes));
    }
  }
}

TEST(TensorWriterTest, JoinsTensorsOfAllSizes) {
  const std::string bytes = Pattern(200'000);
  std::vector<Payload> tensors;
  size_t begin = 0;
  for (const size_t count :
       {0, 10, 16383, 16384, 0, 16385, 1, 100'000, 3, 50'834, 0}) {
    tensors.push_back({AsBytes(bytes).subspan(begin, count)});
    begin += count;
  }
  ASSERT_EQ(begin, bytes.size());
  TensorWriter writer(Header(), std::move(tensors), 30'000);
  EXPECT_EQ(Drain(writer), Generated(bytes, 30'000));
}

TEST(TensorWriterTest, SendsBytesThatComeLater) {
  const std::string bytes = Pattern(100'000);
  for (const size_t step : {1'000, 30'000, 45'000, 100'000}) {
    const auto first = AsBytes(bytes).first(10);
    TensorWriter writer(Header(), {{first}}, 30'000, {},
                        std::ssize(bytes) - 10);
    std::vector<std::string> messages;
    size_t given = 10;
    while (!writer.is_done()) {
      while (writer.lacks_bytes()) {
        ASSERT_LT(given, bytes.size());
        const size_t count = std::min(step, bytes.size() - given);
        writer.Append({{AsBytes(bytes).subspan(given, count)}, {}});
        given += count;
      }
      messages.push_back(BytesOf(*writer.Next()));
    }
    EXPECT_FALSE(writer.Next().has_value());
    EXPECT_EQ(messages, Generated(bytes, 30'000));
  }
}

TEST(TensorWriterTest, LetsLaterBytesGoThatHaveBeenSent) {
  Owned first(50'000), second(50'000);
  TensorWriter writer(Header(), {}, 50'000, {}, 100'000);
  writer.Append({first.Give()});
  writer.Next();
  writer.Append({second.Give()});
  EXPECT_TRUE(first.alive.expired());
  EXPECT_FALSE(second.alive.expired());
}

TEST(TensorWriterTest, SendsTheHeaderAlsoWithoutBytes) {
  v1::SetParamsHeader header;
  header.set_instance("net");
  TensorWriter writer(header, {{}, {}});
  EXPECT_THAT(Drain(writer), ElementsAre("\x0A\x05\x0A\x03net"));
}

TEST(TensorWriterTest, SendsAnEmptyHeader) {
  TensorWriter writer(v1::SetParamsHeader(), {});
  EXPECT_THAT(Drain(writer), ElementsAre(std::string("\x0A\x00", 2)));
}

TEST(TensorWriterTest, KeepsToTheLargestChunk) {
  const std::string bytes = Pattern(kMaxChunkBytes + 1);
  TensorWriter writer(Header(), {{AsBytes(bytes)}}, kMaxChunkBytes * 2);
  EXPECT_EQ(Message::Decode(*writer.Next())->chunk_bytes(), kMaxChunkBytes);
  EXPECT_EQ(Message::Decode(*writer.Next())->chunk_bytes(), 1);
}

TEST(TensorWriterTest, SharesTheMemoryOfLargeTensors) {
  const std::string bytes = Pattern(kMinSharedBytes);
  TensorWriter writer(Header(), {{AsBytes(bytes)}});
  const Message message = Message::Decode(*writer.Next()).value();
  ASSERT_EQ(message.chunk_parts().size(), 1);
  EXPECT_EQ(message.chunk_parts()[0].data(), AsBytes(bytes).data());
}

TEST(TensorWriterTest, GathersSmallTensorsInOneSlice) {
  const std::string bytes = Pattern(100);
  const std::vector<Payload> tensors(20, {AsBytes(bytes)});
  TensorWriter writer(Header(), tensors);
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(writer.Next()->Dump(&slices).ok());
  EXPECT_EQ(slices.size(), 1);
}

TEST(TensorWriterTest, HoldsLargeTensorsAsLongAsTheirMessages) {
  Owned tensor(100'000);
  auto writer = std::make_unique<TensorWriter>(
      Header(), std::vector{tensor.Give()}, 60'000);
  std::optional<grpc::ByteBuffer> first = writer->Next();
  std::optional<grpc::ByteBuffer> second = writer->Next();
  writer.reset();
  first.reset();
  EXPECT_FALSE(tensor.alive.expired());
  second.reset();
  EXPECT_TRUE(tensor.alive.expired());
}

TEST(TensorWriterTest, LetsTensorsGoThatWereNeverSent) {
  Owned tensor(100'000);
  {
    TensorWriter writer(Header(), {tensor.Give()}, 10'000);
    writer.Next();
    EXPECT_FALSE(tensor.alive.expired());
  }
  EXPECT_TRUE(tensor.alive.expired());
}

TEST(TensorWriterTest, DoesNotHoldWhatItCopied) {
  Owned tensor(100);
  std::optional<grpc::ByteBuffer> message;
  {
    TensorWriter writer(Header(), {tensor.Give()});
    message = writer.Next();
  }
  EXPECT_TRUE(tensor.alive.expired());
  EXPECT_EQ(DataOf(Message::Decode(*message).value()), Pattern(100));
}

TEST(TensorWriterTest, WritesThePartsOfACallAsGeneratedCodeDoes) {
  const std::string bytes = Pattern(50);
  Frame frame = PartOf(300, v1::CallsRequest::kSetParamsFieldNumber);
  v1::CallsRequest first;
  first.set_after(299);
  frame.first = first.SerializeAsString();
  TensorWriter writer(Header(), {{.bytes = AsBytes(bytes)}}, 20, frame);
  std::vector<v1::CallsRequest> parts;
  for (const std::string& part : Drain(writer)) {
    EXPECT_TRUE(parts.emplace_back().ParseFromString(part));
  }
  ASSERT_EQ(parts.size(), 3U);
  std::string sent;
  for (const v1::CallsRequest& part : parts) {
    EXPECT_EQ(part.call(), 300U);
    EXPECT_EQ(part.chunk().offset(), static_cast<int64_t>(sent.size()));
    sent += part.chunk().data();
    EXPECT_EQ(part.has_set_params(), &part == &parts[0]);
    EXPECT_EQ(part.after(), &part == &parts[0] ? 299U : 0U);
  }
  EXPECT_EQ(sent, bytes);
  EXPECT_EQ(parts[0].set_params().SerializeAsString(),
            Header().SerializeAsString());
}

TEST(TensorWriterTest, EndsAnAnswerWithItsStatus) {
  const std::string bytes = Pattern(50);
  for (const int64_t chunk_bytes : {20, 100}) {
    Frame frame = PartOf(7, v1::CallsResponse::kGetParamsFieldNumber);
    frame.last = {0x1A, 0x00};
    TensorWriter writer(v1::GetParamsResult(), {{.bytes = AsBytes(bytes)}},
                        chunk_bytes, frame);
    const std::vector<std::string> messages = Drain(writer);
    for (const std::string& message : messages) {
      v1::CallsResponse part;
      ASSERT_TRUE(part.ParseFromString(message));
      EXPECT_EQ(part.has_status(), &message == &messages.back());
      EXPECT_EQ(part.status().code(), 0);
    }
  }
}

}  // namespace
}  // namespace backboned::wire
