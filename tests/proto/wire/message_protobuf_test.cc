// Compares the decoder with generated code: both accept the same bytes, and
// find the same content.

#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "absl/strings/escaping.h"
#include "backboned/v1/backbone_service.pb.h"
#include "proto/wire/message.h"
#include "tests/proto/wire/buffers.h"
#include "tests/testing/status_matchers.h"

namespace backboned::wire {
namespace {

// Returns whether the bytes are a message.
bool ExpectSameAsGenerated(const std::string& bytes, size_t slice_bytes) {
  SCOPED_TRACE(absl::CHexEscape(bytes));
  const google::protobuf::LogSilencer no_complaints_about_utf8;
  v1::SetParamsRequest generated;
  const bool parses = generated.ParseFromString(bytes);
  const absl::StatusOr<Message> message =
      Message::Decode(BufferOf(bytes, slice_bytes));
  v1::SetParamsHeader header;
  const absl::Status status =
      message.ok() ? message->ParseHeader(header) : message.status();
  EXPECT_EQ(status.ok(), parses) << status;
  if (!parses || !status.ok()) return false;
  EXPECT_EQ(message->has_header(), generated.has_header());
  EXPECT_EQ(header.SerializeAsString(), generated.header().SerializeAsString());
  EXPECT_EQ(message->has_chunk(), generated.has_chunk());
  EXPECT_EQ(message->chunk_offset(), generated.chunk().offset());
  EXPECT_EQ(DataOf(*message), generated.chunk().data());
  return true;
}

// Compares a part of a stream of calls, if generated code takes the bytes. It
// checks a header behind which another one comes, and ours does not.
bool ExpectSameAsGeneratedPart(const std::string& bytes, size_t slice_bytes) {
  SCOPED_TRACE(absl::CHexEscape(bytes));
  const google::protobuf::LogSilencer no_complaints_about_utf8;
  v1::CallsRequest generated;
  const bool parses = generated.ParseFromString(bytes);
  const absl::StatusOr<Message> part =
      Message::DecodePart(BufferOf(bytes, slice_bytes));
  if (!parses) return false;
  EXPECT_THAT(part, IsOk());
  v1::CallsRequest rest;
  EXPECT_THAT(part->ParseRest(rest), IsOk());
  EXPECT_EQ(part->has_chunk(), generated.has_chunk());
  EXPECT_EQ(part->chunk_offset(), generated.chunk().offset());
  EXPECT_EQ(DataOf(*part), generated.chunk().data());
  const auto* const field = v1::CallsRequest::descriptor()->FindFieldByNumber(
      static_cast<int>(part->header_field()));
  if (field == nullptr && part->has_header()) return true;  // Unknown to us.
  if (field != nullptr) {
    google::protobuf::Message* const header =
        rest.GetReflection()->MutableMessage(&rest, field);
    EXPECT_THAT(part->ParseHeader(*header), IsOk());
    EXPECT_TRUE(header->ParseFromString(part->header_bytes()));
  }
  generated.clear_chunk();
  rest.DiscardUnknownFields();
  generated.DiscardUnknownFields();
  EXPECT_EQ(rest.SerializeAsString(), generated.SerializeAsString());
  return true;
}

// Writes random fields: mostly known ones, often in odd encodings.
class RandomWire {
 public:
  explicit RandomWire(uint32_t seed) : random_(seed) {}

  uint32_t Next() { return static_cast<uint32_t>(random_()); }

  uint32_t Below(uint32_t end) { return Next() % end; }

  std::string Fields(int depth) {
    std::string out;
    for (uint32_t i = Below(4); i > 0; --i) out += Field(depth);
    return out;
  }

  std::string Mutate(std::string bytes) {
    for (uint32_t i = Below(3); i > 0 && !bytes.empty(); --i) {
      const uint32_t at = Below(static_cast<uint32_t>(bytes.size()));
      switch (Below(4)) {
        case 0:
          bytes[at] = static_cast<char>(Below(256));
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8)));
          break;
        case 2:
          bytes.erase(at, 1);
          break;
        default:
          bytes.resize(at);
      }
    }
    return bytes;
  }

 private:
  // Encodes in up to 11 bytes, even if fewer would do.
  std::string Varint(uint64_t value) {
    std::string out;
    const uint32_t padding = Below(8) == 0 ? Below(10) : 0;
    while (value >= 0x80) {
      out.push_back(static_cast<char>(value | 0x80));
      value >>= 7;
    }
    out.push_back(static_cast<char>(value | (padding > 0 ? 0x80 : 0)));
    for (uint32_t i = 0; i < padding; ++i) {
      const bool last = i + 1 == padding;
      out.push_back(static_cast<char>(Below(128) | (last ? 0 : 0x80)));
    }
    return out;
  }

  std::string Field(int depth) {
    const uint32_t number = Below(12) == 0 ? Next() >> 3 : Below(4);
    const uint32_t type = Below(16) == 0 ? Below(8) : (Below(3) == 0 ? 0 : 2);
    const std::string tag = Varint(number << 3 | type);
    switch (type) {
      case 0:
        return tag + Varint(Next() >> Below(32));
      case 1:
        return tag + std::string(8, 'x');
      case 3:
        return tag + (depth > 0 ? Fields(depth - 1) : "") +
               Varint(number << 3 | 4);
      case 5:
        return tag + std::string(4, 'x');
      default:
        return tag + Length(depth);
    }
  }

  std::string Length(int depth) {
    const std::string inner =
        depth > 0 ? Fields(depth - 1) : std::string(Below(20), 'y');
    return Varint(inner.size()) + inner;
  }

  std::mt19937 random_;
};

// Compares `count` messages, enough of which must be good and enough bad.
template <typename Make>
void ExpectSameForMany(int count, uint32_t seed, const Make& make,
                       bool expect_same(const std::string&,
                                        size_t) = ExpectSameAsGenerated) {
  RandomWire random(seed);
  int good = 0;
  for (int i = 0; i < count && !testing::Test::HasFailure(); ++i) {
    const std::string bytes = make(random);
    good += expect_same(bytes, 1 + random.Below(20)) ? 1 : 0;
  }
  EXPECT_GT(good, count / 20);
  EXPECT_LT(good, count - count / 20);
}

TEST(MessageProtobufTest, AgreesOnRandomMessages) {
  ExpectSameForMany(100'000, 1,
                    [](RandomWire& random) { return random.Fields(3); });
}

TEST(MessageProtobufTest, AgreesOnDamagedMessages) {
  v1::SetParamsRequest request;
  request.mutable_header()->set_instance("net");
  request.mutable_header()->mutable_selection()->add_globs("*.weight");
  request.mutable_header()->mutable_spec()->add_shape(5);
  request.mutable_chunk()->set_offset(1 << 20);
  request.mutable_chunk()->set_data(Pattern(40));
  const std::string bytes = request.SerializeAsString();
  ExpectSameForMany(100'000, 2, [&](RandomWire& random) {
    return random.Mutate(bytes + bytes);
  });
}

TEST(MessageProtobufTest, AgreesOnDamagedParts) {
  v1::CallsRequest part;
  part.set_call(300);
  part.set_after(299);
  part.mutable_timeout()->set_seconds(5);
  part.mutable_set_params()->set_instance("net");
  part.mutable_set_params()->mutable_selection()->add_globs("*.weight");
  part.mutable_set_params()->mutable_spec()->add_shape(5);
  part.mutable_chunk()->set_offset(1 << 20);
  part.mutable_chunk()->set_data(Pattern(40));
  const std::string bytes = part.SerializeAsString();
  ExpectSameForMany(
      100'000, 4,
      [&](RandomWire& random) { return random.Mutate(bytes + bytes); },
      ExpectSameAsGeneratedPart);
}

TEST(MessageProtobufTest, AgreesOnRandomBytes) {
  ExpectSameForMany(100'000, 3, [](RandomWire& random) {
    std::string bytes(random.Below(12), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random.Next());
    return bytes;
  });
}

TEST(MessageProtobufTest, AgreesOnHowDeepGroupsNest) {
  for (size_t depth = 95; depth <= 105; ++depth) {
    const std::string group =
        std::string(depth, '\x7B') + std::string(depth, '\x7C');  // Field 15.
    const std::string length = {static_cast<char>(group.size() | 0x80),
                                static_cast<char>(group.size() >> 7)};
    ExpectSameAsGenerated(group, 50);
    ExpectSameAsGenerated("\x0A" + length + group, 50);
    ExpectSameAsGenerated("\x12" + length + group, 50);
  }
}

TEST(MessageProtobufTest, AgreesOnAnyOffset) {
  for (const int64_t offset :
       {int64_t{0}, int64_t{1}, int64_t{127}, int64_t{128}, int64_t{1} << 40,
        INT64_MAX, int64_t{-1}, INT64_MIN}) {
    v1::SetParamsRequest request;
    request.mutable_chunk()->set_offset(offset);
    ExpectSameAsGenerated(request.SerializeAsString(), 3);
  }
}

}  // namespace
}  // namespace backboned::wire
