// Converts between the contract's optimizers and the server's.

#ifndef BACKBONED_SERVER_RPC_CONVERT_OPTIMIZER_CONVERT_H_
#define BACKBONED_SERVER_RPC_CONVERT_OPTIMIZER_CONVERT_H_

#include "absl/status/statusor.h"
#include "backboned/v1/backbone_service.pb.h"
#include "backboned/v1/optimizer.pb.h"
#include "backbones/layout.h"
#include "backbones/optimizer.h"

namespace backboned::rpc {

// Makes an optimizer of the parameters of `layout`, without state.
//
// Returns kInvalidArgument (kInvalidOption) if the kind is unknown, a group has
// a number that its kind does not take, or MakeOptimizer refuses it.
absl::StatusOr<OptimizerPtr> FromProto(const v1::Optimizer& optimizer,
                                       const Layout& layout);

// Returns the optimizer without its state, defaults filled in.
v1::Optimizer ToProto(const OptimizerState& optimizer);

// Options of a step, not checked (see CheckStep), and its result.
StepOptions FromProto(const v1::StepOptions& options);
v1::StepResult ToProto(const StepOutput& output);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CONVERT_OPTIMIZER_CONVERT_H_
