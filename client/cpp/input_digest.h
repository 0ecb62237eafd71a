// Names an input, to ask an instance's feature cache for its answer.

#ifndef BACKBONED_CLIENT_CPP_INPUT_DIGEST_H_
#define BACKBONED_CLIENT_CPP_INPUT_DIGEST_H_

#include <cstddef>
#include <span>
#include <string>

#include "backboned/v1/tensor.pb.h"

namespace backboned::client {

// Returns the 32 bytes of ForwardHeader.input_digest for one input of this spec
// and these bytes.
std::string InputDigest(const v1::TensorSpec& spec,
                        std::span<const std::byte> bytes);

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_INPUT_DIGEST_H_
