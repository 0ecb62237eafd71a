// Describes the contract to a front that speaks JSON.

#ifndef BACKBONED_CLIENT_CLI_DESCRIPTORS_H_
#define BACKBONED_CLIENT_CLI_DESCRIPTORS_H_

#include <string>

namespace backboned::cli {

// Returns the contract's files, a FileDescriptorSet in bytes, with the methods
// of one request and one response only: the others carry tensors in streams.
std::string UnaryContract();

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_DESCRIPTORS_H_
