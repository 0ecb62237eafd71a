// Checks the options and inputs of a forward's header against the instance.

#ifndef BACKBONED_SERVER_RPC_CONVERT_FORWARD_OPTIONS_H_
#define BACKBONED_SERVER_RPC_CONVERT_FORWARD_OPTIONS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "backboned/v1/backbone_service.pb.h"
#include "backbones/forward.h"
#include "backbones/layout.h"
#include "backbones/state.h"
#include "server/instances/instance.h"

namespace backboned::rpc {

// Returns the options of a forward, outputs and patterns resolved; the
// gradients' mask is empty if the header does not set it. Returns
// kInvalidArgument if one is not valid or the architecture lacks it.
absl::StatusOr<ForwardOptions> OptionsOf(const v1::ForwardHeader& header,
                                         const Instance& instance);

// Checks the specs of a header's inputs and returns their bytes, or
// kInvalidArgument (kInvalidOption, kShapeMismatch, kDtypeMismatch).
absl::StatusOr<int64_t> CheckInputs(const v1::ForwardHeader& header,
                                    const Instance& instance, bool training);

// Checks the specs of a header's buffers, if any, and returns their bytes, or
// kInvalidArgument (kShapeMismatch, kDtypeMismatch).
absl::StatusOr<int64_t> CheckBuffers(const v1::ForwardHeader& header,
                                     const Layout& layout, const State& state);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CONVERT_FORWARD_OPTIONS_H_
