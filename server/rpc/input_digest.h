// What names an input in an instance's feature cache.

#ifndef BACKBONED_SERVER_RPC_INPUT_DIGEST_H_
#define BACKBONED_SERVER_RPC_INPUT_DIGEST_H_

#include <cstddef>
#include <span>
#include <string>

#include "backboned/v1/tensor.pb.h"

namespace backboned::rpc {

// Returns the 32 bytes of ForwardHeader.input_digest for one input of this
// spec and these bytes.
std::string InputDigest(const v1::TensorSpec& spec,
                        std::span<const std::byte> bytes);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_INPUT_DIGEST_H_
