// The contract of the .proto files, with their comments.

#ifndef BACKBONED_TESTS_PROTO_CONTRACT_H_
#define BACKBONED_TESTS_PROTO_CONTRACT_H_

#include <google/protobuf/descriptor.h>

#include <vector>

namespace backboned {

// All files of the package backboned.v1, as protoc described them when this
// test was built. Owns the descriptors.
class Contract {
 public:
  // Ends the test program if the description cannot be read.
  Contract();

  // Returns the messages of all files, nested ones too, except those that
  // protoc makes for maps.
  std::vector<const google::protobuf::Descriptor*> Messages() const;

  // Returns the enums of all files, nested ones too.
  std::vector<const google::protobuf::EnumDescriptor*> Enums() const;

  // Returns the services of all files.
  std::vector<const google::protobuf::ServiceDescriptor*> Services() const;

 private:
  google::protobuf::DescriptorPool pool_;
  std::vector<const google::protobuf::FileDescriptor*> files_;
};

}  // namespace backboned

#endif  // BACKBONED_TESTS_PROTO_CONTRACT_H_
