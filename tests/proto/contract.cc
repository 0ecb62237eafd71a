#include "tests/proto/contract.h"

#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/stubs/logging.h>

#include <fstream>

namespace backboned {
namespace {

constexpr char kPackage[] = "backboned.v1";

void AddWithNested(const google::protobuf::Descriptor* message,
                   std::vector<const google::protobuf::Descriptor*>& out) {
  if (message->options().map_entry()) return;
  out.push_back(message);
  for (int i = 0; i < message->nested_type_count(); ++i) {
    AddWithNested(message->nested_type(i), out);
  }
}

google::protobuf::FileDescriptorSet ReadDescriptors() {
  std::ifstream in(BACKBONED_CONTRACT_FILE, std::ios::binary);
  google::protobuf::FileDescriptorSet set;
  GOOGLE_CHECK(set.ParseFromIstream(&in)) << BACKBONED_CONTRACT_FILE;
  return set;
}

}  // namespace

Contract::Contract() {
  const google::protobuf::FileDescriptorSet set = ReadDescriptors();
  for (const auto& description : set.file()) {
    const auto* file = pool_.BuildFile(description);
    GOOGLE_CHECK(file != nullptr) << description.name();
    if (file->package() == kPackage) files_.push_back(file);
  }
}

std::vector<const google::protobuf::Descriptor*> Contract::Messages() const {
  std::vector<const google::protobuf::Descriptor*> messages;
  for (const auto* file : files_) {
    for (int i = 0; i < file->message_type_count(); ++i) {
      AddWithNested(file->message_type(i), messages);
    }
  }
  return messages;
}

std::vector<const google::protobuf::EnumDescriptor*> Contract::Enums() const {
  std::vector<const google::protobuf::EnumDescriptor*> enums;
  for (const auto* file : files_) {
    for (int i = 0; i < file->enum_type_count(); ++i) {
      enums.push_back(file->enum_type(i));
    }
  }
  for (const auto* message : Messages()) {
    for (int i = 0; i < message->enum_type_count(); ++i) {
      enums.push_back(message->enum_type(i));
    }
  }
  return enums;
}

std::vector<const google::protobuf::ServiceDescriptor*> Contract::Services()
    const {
  std::vector<const google::protobuf::ServiceDescriptor*> services;
  for (const auto* file : files_) {
    for (int i = 0; i < file->service_count(); ++i) {
      services.push_back(file->service(i));
    }
  }
  return services;
}

}  // namespace backboned
