// Checks the example in docs/wire.md.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "backboned/v1/backbone_service.pb.h"
#include "proto/wire/tensor_reader.h"
#include "proto/wire/tensor_writer.h"
#include "tests/proto/wire/buffers.h"
#include "tests/testing/status_matchers.h"

namespace backboned::wire {
namespace {

bool IsHexByte(const std::string& word) {
  return word.size() == 2 &&
         std::isxdigit(static_cast<unsigned char>(word[0])) &&
         std::isxdigit(static_cast<unsigned char>(word[1]));
}

// Returns the bytes at the beginning of a line.
std::string BytesOfLine(const std::string& line) {
  std::istringstream words(line);
  std::string word, bytes;
  while (words >> word && IsHexByte(word)) {
    bytes.push_back(static_cast<char>(std::stoi(word, nullptr, 16)));
  }
  return bytes;
}

// Returns the messages of the page.
std::vector<std::string> DocumentedMessages() {
  std::ifstream page("docs/wire.md");
  std::vector<std::string> messages;
  bool inside = false;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("```")) {
      inside = line == "```wire";
      if (inside) messages.emplace_back();
    } else if (inside) {
      messages.back() += BytesOfLine(line);
    }
  }
  return messages;
}

constexpr float kParams[] = {1.0F, -2.0F};

TEST(WireDocTest, ShowsWhatTheWriterWrites) {
  TensorWriter writer(Header(), {{std::as_bytes(std::span(kParams))}}, 4);
  std::vector<std::string> written;
  while (std::optional<grpc::ByteBuffer> message = writer.Next()) {
    written.push_back(BytesOf(*message));
  }
  EXPECT_EQ(written, DocumentedMessages());
}

TEST(WireDocTest, ShowsWhatGeneratedCodeReads) {
  const std::vector<std::string> messages = DocumentedMessages();
  ASSERT_EQ(messages.size(), 2);
  v1::SetParamsRequest first, second;
  ASSERT_TRUE(first.ParseFromString(messages[0]));
  ASSERT_TRUE(second.ParseFromString(messages[1]));
  EXPECT_EQ(first.header().SerializeAsString(), Header().SerializeAsString());
  EXPECT_EQ(first.chunk().offset(), 0);
  EXPECT_EQ(second.chunk().offset(), 4);
}

TEST(WireDocTest, ShowsWhatTheReaderReads) {
  float params[2] = {};
  TensorReader reader({std::as_writable_bytes(std::span(params))});
  for (const std::string& bytes : DocumentedMessages()) {
    ASSERT_THAT(reader.Accept(Message::Decode(BufferOf(bytes)).value()),
                IsOk());
  }
  EXPECT_THAT(reader.Finish(), IsOk());
  EXPECT_THAT(params, testing::ElementsAreArray(kParams));
}

}  // namespace
}  // namespace backboned::wire
