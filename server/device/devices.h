// The devices of this machine.

#ifndef BACKBONED_SERVER_DEVICE_DEVICES_H_
#define BACKBONED_SERVER_DEVICE_DEVICES_H_

#include <c10/core/Device.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace backboned {

// Reads device names (`cpu`, `cuda`, `cuda:N`) and makes sure that they are
// there. LibTorch's CUDA library is loaded at the first `cuda`.
//
// kInvalidArgument for anything else, kFailedPrecondition if the library or the
// GPU is missing; the message says which.
absl::StatusOr<std::vector<c10::Device>> OpenDevices(
    const std::vector<std::string>& names);

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_DEVICES_H_
