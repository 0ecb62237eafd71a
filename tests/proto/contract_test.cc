// Shows every change of the contract in review, as one of contract.golden.

#include "tests/proto/contract.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace backboned {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::EnumDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::MethodDescriptor;
using ::google::protobuf::ServiceDescriptor;

constexpr char kGoldenFile[] = "tests/proto/contract.golden";
constexpr char kUpdateVariable[] = "BACKBONED_UPDATE_GOLDEN";

std::string TypeName(const FieldDescriptor& field) {
  if (field.is_map()) {
    const Descriptor& entry = *field.message_type();
    return absl::StrCat("map<", TypeName(*entry.map_key()), ", ",
                        TypeName(*entry.map_value()), ">");
  }
  if (field.message_type() != nullptr) return field.message_type()->full_name();
  if (field.enum_type() != nullptr) return field.enum_type()->full_name();
  return field.type_name();
}

std::string List(const FieldDescriptor& field) {
  std::string label;
  if (field.is_repeated() && !field.is_map()) label = "repeated ";
  if (field.has_optional_keyword()) label = "optional ";
  if (field.real_containing_oneof() != nullptr) {
    label = absl::StrCat("oneof ", field.real_containing_oneof()->name(), " ");
  }
  return absl::StrCat("  ", field.number(), " ", field.name(), ": ", label,
                      TypeName(field), "\n");
}

std::string List(const Descriptor& message) {
  std::map<int, std::string> fields;
  for (int i = 0; i < message.field_count(); ++i) {
    fields[message.field(i)->number()] = List(*message.field(i));
  }
  std::string text = absl::StrCat("message ", message.full_name(), "\n");
  for (const auto& [number, line] : fields) text += line;
  for (int i = 0; i < message.reserved_range_count(); ++i) {
    const Descriptor::ReservedRange& range = *message.reserved_range(i);
    absl::StrAppend(&text, "  reserved ", range.start, " to ", range.end - 1,
                    "\n");
  }
  for (int i = 0; i < message.reserved_name_count(); ++i) {
    absl::StrAppend(&text, "  reserved \"", message.reserved_name(i), "\"\n");
  }
  return text;
}

std::string List(const EnumDescriptor& type) {
  std::string text = absl::StrCat("enum ", type.full_name(), "\n");
  for (int i = 0; i < type.value_count(); ++i) {
    absl::StrAppend(&text, "  ", type.value(i)->number(), " ",
                    type.value(i)->name(), "\n");
  }
  for (int i = 0; i < type.reserved_range_count(); ++i) {
    const EnumDescriptor::ReservedRange& range = *type.reserved_range(i);
    absl::StrAppend(&text, "  reserved ", range.start, " to ", range.end, "\n");
  }
  for (int i = 0; i < type.reserved_name_count(); ++i) {
    absl::StrAppend(&text, "  reserved \"", type.reserved_name(i), "\"\n");
  }
  return text;
}

std::string List(const MethodDescriptor& method) {
  return absl::StrCat("  ", method.name(), "(",
                      method.client_streaming() ? "stream " : "",
                      method.input_type()->full_name(), ") returns (",
                      method.server_streaming() ? "stream " : "",
                      method.output_type()->full_name(), ")\n");
}

std::string List(const ServiceDescriptor& service) {
  std::string text = absl::StrCat("service ", service.full_name(), "\n");
  for (int i = 0; i < service.method_count(); ++i) {
    text += List(*service.method(i));
  }
  return text;
}

// Lists services, messages and enums by name, whatever their file.
std::string List(const Contract& contract) {
  std::map<std::string, std::string> services, messages, enums;
  for (const auto* service : contract.Services()) {
    services[service->full_name()] = List(*service);
  }
  for (const auto* message : contract.Messages()) {
    messages[message->full_name()] = List(*message);
  }
  for (const auto* type : contract.Enums()) {
    enums[type->full_name()] = List(*type);
  }
  std::string text;
  for (const auto* group : {&services, &messages, &enums}) {
    for (const auto& [name, entry] : *group)
      absl::StrAppend(&text, entry, "\n");
  }
  return text;
}

std::string ReadGolden() {
  std::ostringstream text;
  text << std::ifstream(kGoldenFile).rdbuf();
  return text.str();
}

TEST(ContractTest, EqualsTheGoldenListing) {
  const Contract contract;
  const std::string listing = List(contract);
  if (std::getenv(kUpdateVariable) != nullptr) {
    ASSERT_TRUE(std::ofstream(kGoldenFile) << listing);
  }
  EXPECT_EQ(listing, ReadGolden())
      << "The contract has changed. If that is meant, run this test with "
      << kUpdateVariable << "=1 and commit " << kGoldenFile << ".";
}

// Fails if the descriptor has no leading comment.
template <typename D>
void ExpectComment(const D& descriptor) {
  google::protobuf::SourceLocation location;
  ASSERT_TRUE(descriptor.GetSourceLocation(&location));
  EXPECT_NE(location.leading_comments, "")
      << descriptor.full_name() << " has no comment";
}

TEST(ContractTest, CommentsEveryServiceAndMethod) {
  const Contract contract;
  EXPECT_FALSE(contract.Services().empty());
  for (const auto* service : contract.Services()) {
    ExpectComment(*service);
    for (int i = 0; i < service->method_count(); ++i) {
      ExpectComment(*service->method(i));
    }
  }
}

TEST(ContractTest, CommentsEveryMessageFieldAndOneof) {
  const Contract contract;
  EXPECT_FALSE(contract.Messages().empty());
  for (const auto* message : contract.Messages()) {
    ExpectComment(*message);
    for (int i = 0; i < message->field_count(); ++i) {
      ExpectComment(*message->field(i));
    }
    for (int i = 0; i < message->real_oneof_decl_count(); ++i) {
      ExpectComment(*message->oneof_decl(i));
    }
  }
}

TEST(ContractTest, CommentsEveryEnumAndValue) {
  const Contract contract;
  EXPECT_FALSE(contract.Enums().empty());
  for (const auto* type : contract.Enums()) {
    ExpectComment(*type);
    for (int i = 0; i < type->value_count(); ++i)
      ExpectComment(*type->value(i));
  }
}

// proto/wire relies on this.
TEST(ContractTest, EveryStreamHasHeaderAndChunk) {
  const Contract contract;
  const auto expect_stream = [](const Descriptor& message) {
    ASSERT_EQ(message.field_count(), 2) << message.full_name();
    const FieldDescriptor* header = message.FindFieldByNumber(1);
    const FieldDescriptor* chunk = message.FindFieldByNumber(2);
    ASSERT_TRUE(header != nullptr && chunk != nullptr) << message.full_name();
    EXPECT_EQ(header->name(), "header") << message.full_name();
    EXPECT_EQ(header->type(), FieldDescriptor::TYPE_MESSAGE);
    EXPECT_EQ(TypeName(*chunk), "backboned.v1.Chunk") << message.full_name();
  };
  for (const auto* service : contract.Services()) {
    for (int i = 0; i < service->method_count(); ++i) {
      const MethodDescriptor& method = *service->method(i);
      if (method.name() == "Calls") continue;
      if (method.client_streaming()) expect_stream(*method.input_type());
      if (method.server_streaming()) expect_stream(*method.output_type());
    }
  }
}

// Returns the message that holds a method's header or result: the request or
// answer itself, or the header of its stream.
const Descriptor& HeaderOf(const Descriptor& message, bool is_stream) {
  return is_stream ? *message.FindFieldByNumber(1)->message_type() : message;
}

TEST(ContractTest, CallsCarryMethodsUnderTheirNamesInBothDirections) {
  const Contract contract;
  std::map<std::string, const MethodDescriptor*> methods;
  const Descriptor* request = nullptr;
  const Descriptor* answer = nullptr;
  for (const auto* service : contract.Services()) {
    for (int i = 0; i < service->method_count(); ++i) {
      const MethodDescriptor& method = *service->method(i);
      methods[method.name()] = &method;
      if (method.name() != "Calls") continue;
      request = method.input_type();
      answer = method.output_type();
    }
  }
  ASSERT_TRUE(request != nullptr && answer != nullptr);
  const auto* headers = request->FindOneofByName("header");
  const auto* results = answer->FindOneofByName("result");
  ASSERT_EQ(headers->field_count(), results->field_count());
  for (int i = 0; i < headers->field_count(); ++i) {
    const FieldDescriptor& header = *headers->field(i);
    const FieldDescriptor& result = *results->field(i);
    EXPECT_EQ(header.name(), result.name());
    EXPECT_EQ(header.number(), result.number());
    std::string name = header.camelcase_name();
    name[0] = absl::ascii_toupper(name[0]);
    ASSERT_TRUE(methods.contains(name)) << name;
    const MethodDescriptor& method = *methods[name];
    EXPECT_EQ(header.message_type(),
              &HeaderOf(*method.input_type(), method.client_streaming()));
    EXPECT_EQ(result.message_type(),
              &HeaderOf(*method.output_type(), method.server_streaming()));
  }
  for (const Descriptor* part : {request, answer}) {
    EXPECT_EQ(TypeName(*part->FindFieldByNumber(2)), "backboned.v1.Chunk");
  }
}

}  // namespace
}  // namespace backboned
