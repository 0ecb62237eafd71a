// Computes the name of an input in an instance's feature cache.

#ifndef BACKBONED_PROTO_WIRE_INPUT_DIGEST_H_
#define BACKBONED_PROTO_WIRE_INPUT_DIGEST_H_

#include <cstddef>
#include <span>
#include <string>

#include "backboned/v1/tensor.pb.h"

namespace backboned::wire {

// Returns the 32 bytes of ForwardHeader.input_digest for an input of `spec` and
// `bytes`.
std::string InputDigest(const v1::TensorSpec& spec,
                        std::span<const std::byte> bytes);

}  // namespace backboned::wire

#endif  // BACKBONED_PROTO_WIRE_INPUT_DIGEST_H_
