// Devices of the servers that tests make.

#ifndef BACKBONED_TESTS_SERVER_DEVICES_H_
#define BACKBONED_TESTS_SERVER_DEVICES_H_

#include <c10/core/Device.h>

#include <vector>

#include "server/memory/memory_allocator.h"

namespace backboned {

// Returns the CPU, whose memory is counted from now on, as tapes need.
inline std::vector<c10::Device> Devices() {
  CpuMemory();
  return {c10::Device(c10::DeviceType::CPU)};
}

}  // namespace backboned

#endif  // BACKBONED_TESTS_SERVER_DEVICES_H_
