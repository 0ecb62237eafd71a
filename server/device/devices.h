// Opens the devices of this machine, and waits for them.

#ifndef BACKBONED_SERVER_DEVICE_DEVICES_H_
#define BACKBONED_SERVER_DEVICE_DEVICES_H_

#include <c10/core/Device.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace backboned {

// Reads device names (`cpu`, `cuda`, `cuda:N`) and checks that the devices
// exist. The first `cuda` loads LibTorch's CUDA library.
//
// Returns kInvalidArgument for any other name, kFailedPrecondition, whose
// message says why, if a GPU cannot be used: its library, driver or itself is
// missing, the driver is too old, or the GPU takes no work.
absl::StatusOr<std::vector<c10::Device>> OpenDevices(
    const std::vector<std::string>& names);

// The name that stands for the device with most free memory, of GPUs if there
// are any.
inline constexpr std::string_view kLeastUsedDevice = "least";

// Returns the name of the processor, or of the card.
std::string DescriptionOf(c10::Device device);

// Returns the version of CUDA that the driver of the machine's GPUs has, e.g.
// `13.0`. Empty: there is no driver.
std::string DriverVersion();

// Lets LibTorch and the device's libraries prepare what they keep for this
// thread, so that no later work waits for it, or seems to take its memory: runs
// a tiny forward and backward of a convolution and a linear layer. Draws no
// random numbers.
void WarmUp(c10::Device device);

// Pins host memory for the copies of all GPUs, by the context of `gpu`. Returns
// false if CUDA does not; the copies are slower then.
bool PinHostMemory(c10::Device gpu, void* memory, size_t bytes);
void UnpinHostMemory(c10::Device gpu, void* memory);

// Waits until `device` has done the work of this thread. A GPU does its work
// later than it is asked to, and tells of a failure with the next wait. Throws
// c10::Error if some of it has failed. Nothing waits for a CPU.
void WaitFor(c10::Device device);

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_DEVICES_H_
