// Lists the tensors that a header announces.

#ifndef BACKBONED_CLIENT_CPP_ANNOUNCED_H_
#define BACKBONED_CLIENT_CPP_ANNOUNCED_H_

#include <google/protobuf/message.h>

#include <vector>

#include "backboned/v1/tensor.pb.h"

namespace backboned::client {

// Returns the specs of the tensors whose bytes follow `header`, in the order of
// the bytes: all specs in it, by field number, including those in nested
// messages. They live as long as `header` is not changed.
std::vector<const v1::TensorSpec*> AnnouncedBy(
    const google::protobuf::Message& header);

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_ANNOUNCED_H_
