// The devices of servers that tests make.

#ifndef BACKBONED_TESTS_SERVER_DEVICES_H_
#define BACKBONED_TESTS_SERVER_DEVICES_H_

#include <c10/core/Device.h>

#include <cstdlib>
#include <vector>

#include "server/device/devices.h"
#include "server/memory/memory_allocator.h"

namespace backboned {

// Returns the device that BACKBONED_TEST_DEVICE names, by default the CPU,
// whose memory is counted from now on, as tapes need.
inline std::vector<c10::Device> Devices() {
  CpuMemory();
  const char* const name = std::getenv("BACKBONED_TEST_DEVICE");
  return OpenDevices({name == nullptr ? "cpu" : name}).value();
}

}  // namespace backboned

#endif  // BACKBONED_TESTS_SERVER_DEVICES_H_
