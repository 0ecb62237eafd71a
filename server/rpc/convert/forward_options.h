// What a forward's header asks for, checked against the instance.

#ifndef BACKBONED_SERVER_RPC_CONVERT_FORWARD_OPTIONS_H_
#define BACKBONED_SERVER_RPC_CONVERT_FORWARD_OPTIONS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "backboned/v1/backbone_service.pb.h"
#include "backboned/v1/tensor.pb.h"
#include "backbones/forward.h"
#include "backbones/layout.h"
#include "backbones/state.h"
#include "server/instances/instance.h"

namespace backboned::rpc {

// Returns the options of a forward, outputs and patterns resolved, and the
// gradients' mask empty if the header does not say which parameters get some;
// kInvalidArgument if one is not valid or the architecture has it not.
absl::StatusOr<ForwardOptions> OptionsOf(const v1::ForwardHeader& header,
                                         const Instance& instance);

// Checks the input's spec against the instance; returns its bytes.
// kInvalidArgument (kShapeMismatch, kDtypeMismatch) otherwise.
absl::StatusOr<int64_t> CheckInput(const v1::TensorSpec& spec,
                                   const Instance& instance, bool training);

// Checks the specs of buffers that the header may send; returns their bytes.
// kInvalidArgument (kShapeMismatch, kDtypeMismatch) otherwise.
absl::StatusOr<int64_t> CheckBuffers(const v1::ForwardHeader& header,
                                     const Layout& layout, const State& state);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CONVERT_FORWARD_OPTIONS_H_
