#include "client/cli/descriptors.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <set>

#include "backboned/v1/backbone_service.pb.h"
#include "backboned/v1/instance_service.pb.h"

namespace backboned::cli {
namespace {

// Adds a file behind those that it imports.
void AddFile(const google::protobuf::FileDescriptor* file,
             std::set<std::string>& added,
             google::protobuf::FileDescriptorSet& files) {
  if (!added.insert(file->name()).second) return;
  for (int i = 0; i < file->dependency_count(); ++i) {
    AddFile(file->dependency(i), added, files);
  }
  google::protobuf::FileDescriptorProto& copy = *files.add_file();
  file->CopyTo(&copy);
  for (auto& service : *copy.mutable_service()) {
    auto& methods = *service.mutable_method();
    for (int i = methods.size() - 1; i >= 0; --i) {
      if (methods[i].client_streaming() || methods[i].server_streaming()) {
        methods.DeleteSubrange(i, 1);
      }
    }
  }
}

}  // namespace

std::string UnaryContract() {
  google::protobuf::FileDescriptorSet files;
  std::set<std::string> added;
  AddFile(v1::ExtractRequest::descriptor()->file(), added, files);
  AddFile(v1::GetServerRequest::descriptor()->file(), added, files);
  return files.SerializeAsString();
}

}  // namespace backboned::cli
