// Computes the name of a forward's inputs in an instance's feature cache.

#ifndef BACKBONED_PROTO_WIRE_INPUT_DIGEST_H_
#define BACKBONED_PROTO_WIRE_INPUT_DIGEST_H_

#include <google/protobuf/repeated_ptr_field.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "backboned/v1/tensor.pb.h"

namespace backboned::wire {

// Returns the 32 bytes of ForwardHeader.input_digest for the `inputs` of a
// header and their bytes.
std::string InputDigest(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& inputs,
    const std::vector<std::span<const std::byte>>& bytes);

}  // namespace backboned::wire

#endif  // BACKBONED_PROTO_WIRE_INPUT_DIGEST_H_
