// Opens the devices of this machine, and waits for them.

#ifndef BACKBONED_SERVER_DEVICE_DEVICES_H_
#define BACKBONED_SERVER_DEVICE_DEVICES_H_

#include <c10/core/Device.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace backboned {

// Reads device names (`cpu`, `cuda`, `cuda:N`) and checks that the devices
// exist. The first `cuda` loads LibTorch's CUDA library.
//
// Returns kInvalidArgument for any other name, kFailedPrecondition, whose
// message says which, if the library or the GPU is missing.
absl::StatusOr<std::vector<c10::Device>> OpenDevices(
    const std::vector<std::string>& names);

// Waits until `device` has done the work of this thread. A GPU does its work
// later than it is asked to, and tells of a failure with the next wait. Throws
// c10::Error if some of it has failed. Nothing waits for a CPU.
void WaitFor(c10::Device device);

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_DEVICES_H_
