#include "client/cpp/announced.h"

#include <google/protobuf/descriptor.h>

namespace backboned::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Specs = std::vector<const v1::TensorSpec*>;

void Append(const Message& message, Specs& specs) {
  if (message.GetDescriptor() == v1::TensorSpec::descriptor()) {
    specs.push_back(static_cast<const v1::TensorSpec*>(&message));
    return;
  }
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);  // By number.
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      Append(reflection.GetMessage(message, field), specs);
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      Append(reflection.GetRepeatedMessage(message, field, i), specs);
    }
  }
}

}  // namespace

Specs AnnouncedBy(const Message& header) {
  Specs specs;
  Append(header, specs);
  return specs;
}

}  // namespace backboned::client
